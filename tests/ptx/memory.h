// The spaces of memory of a block, and what may be wrong with an access.
#ifndef CUPOLA_TESTS_PTX_MEMORY_H_
#define CUPOLA_TESTS_PTX_MEMORY_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "program.h"

namespace ptx {

enum class Space : uint8_t { kGlobal, kShared, kLocal, kGeneric };

// Generic addresses of memory that is not global.
constexpr uint64_t kSharedWindow = uint64_t{1} << 60, kLocalWindow = uint64_t{1} << 61;

enum class Access { kRead, kWrite, kAtomic };

[[noreturn]] void RefuseAccess(const char* what, uint64_t address, size_t bytes, size_t limit);

inline void CheckAligned(uint64_t address, size_t bytes) {
  if (address & (bytes - 1)) RefuseAccess("misaligned access", address, bytes, 0);
}

// Memory of a block, with who touched what since the last barrier.
class SharedMemory {
 public:
  // Begins a new block. Fresh memory is `poison`.
  void Reset(size_t bytes, uint8_t poison, bool races);
  void Barrier() { ++epoch_; }
  // Bytes must be a power of two.
  uint8_t* At(uint64_t address, size_t bytes, unsigned warp, Access access) {
    CheckAligned(address, bytes);
    if (address + bytes > data_.size() || address + bytes < bytes) {
      RefuseAccess("outside of shared memory: access", address, bytes, data_.size());
    }
    if (races_) Note(address, bytes, warp, access);
    return data_.data() + address;
  }

 private:
  // Warps by number; a writer is its number and one, kMany atomic ones.
  struct Word {
    uint32_t epoch = 0;
    uint8_t writer[4] = {};
    uint32_t readers[4] = {};
  };
  static constexpr uint8_t kAtomics = 255;

  void Note(uint64_t address, size_t bytes, unsigned warp, Access access);
  // Of a whole word that nobody else touched. False: it has to be looked at by bytes.
  bool NoteWord(Word* word, unsigned warp, Access access);
  void NoteByte(Word* word, unsigned byte, uint64_t address, unsigned warp, Access access);

  std::vector<uint8_t> data_;
  std::vector<Word> words_;
  uint32_t epoch_ = 1;
  bool races_ = true;
};

// What of the global space may be touched.
class GlobalMemory {
 public:
  using Range = std::pair<uint64_t, uint64_t>;
  GlobalMemory(std::vector<Range> ranges, bool limited)
      : ranges_(std::move(ranges)), limited_(limited) {}

  // `last` is where the caller found its last access.
  void Check(uint64_t address, size_t bytes, Range* last) const {
    if (address < last->first || address + bytes > last->second) *last = Find(address, bytes);
  }

 private:
  Range Find(uint64_t address, size_t bytes) const;

  std::vector<Range> ranges_;  // in order
  bool limited_;
};

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_MEMORY_H_
