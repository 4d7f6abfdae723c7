#include "memory.h"

#include <algorithm>
#include <cstdio>

namespace ptx {
namespace {

std::string Hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

[[noreturn]] void RefuseRace(const char* what, uint64_t address, unsigned warp, unsigned other) {
  throw Fault("race in shared memory at " + Hex(address) + ": warp " + std::to_string(warp) + " " +
              what + " warp " + std::to_string(other) + ", with no barrier between them");
}

}  // namespace

void RefuseAccess(const char* what, uint64_t address, size_t bytes, size_t limit) {
  std::string message =
      std::string(what) + " of " + std::to_string(bytes) + " bytes at " + Hex(address);
  if (limit) message += ", of " + std::to_string(limit) + " bytes";
  throw Fault(message);
}

void SharedMemory::Reset(size_t bytes, uint8_t poison, bool races) {
  data_.assign(bytes, poison);
  races_ = races;
  if (races && words_.size() < (bytes + 3) / 4) words_.resize((bytes + 3) / 4);
  ++epoch_;
}

void SharedMemory::NoteByte(Word* word, unsigned byte, uint64_t address, unsigned warp,
                            Access access) {
  const uint8_t writer = word->writer[byte];
  const uint8_t self = access == Access::kAtomic ? kAtomics : static_cast<uint8_t>(warp + 1);
  if (writer != 0 && writer != self) {
    const char* what =
        access == Access::kRead ? "reads what was written by" : "writes what was written by";
    RefuseRace(what, address, warp, writer == kAtomics ? warp : writer - 1u);
  }
  if (access == Access::kRead) {
    word->readers[byte] |= 1u << warp;
    return;
  }
  const uint32_t others = word->readers[byte] & ~(1u << warp);
  if (others)
    RefuseRace("writes what was read by", address, warp,
               static_cast<unsigned>(__builtin_ctz(others)));
  word->writer[byte] = self;
}

bool SharedMemory::NoteWord(Word* word, unsigned warp, Access access) {
  const uint32_t own = 0x01010101u * (warp + 1), reader = 1u << warp;
  uint32_t writers;
  std::memcpy(&writers, word->writer, sizeof(writers));
  if (access == Access::kAtomic || (writers != 0 && writers != own)) return false;
  if (access == Access::kRead) {
    for (uint32_t& readers : word->readers) readers |= reader;
    return true;
  }
  uint32_t readers = 0;
  for (const uint32_t of_byte : word->readers) readers |= of_byte;
  if (readers & ~reader) return false;
  std::memcpy(word->writer, &own, sizeof(own));
  return true;
}

void SharedMemory::Note(uint64_t address, size_t bytes, unsigned warp, Access access) {
  for (uint64_t at = address; at < address + bytes;) {
    Word& word = words_[at / 4];
    if (word.epoch != epoch_) word = Word{epoch_, {}, {}};
    const uint64_t end = std::min(address + bytes, at / 4 * 4 + 4);
    if (end - at == 4 && NoteWord(&word, warp, access)) {
      at = end;
      continue;
    }
    for (; at < end; ++at) NoteByte(&word, at % 4, at, warp, access);
  }
}

GlobalMemory::Range GlobalMemory::Find(uint64_t address, size_t bytes) const {
  const auto behind =
      std::upper_bound(ranges_.begin(), ranges_.end(), Range(address, ~uint64_t{0}));
  if (behind != ranges_.begin() && address + bytes <= std::prev(behind)->second)
    return *std::prev(behind);
  const bool possible = address >= 4096 && address + bytes < uint64_t{1} << 47;
  if (limited_ || !possible) RefuseAccess("outside of global memory: access", address, bytes, 0);
  return {address, address + bytes};
}

}  // namespace ptx
