// The device's memory, and the host's pinned memory: who has which bytes.
//
// Device memory is a range of addresses of its own, which the process cannot touch except while the
// device works (Opened): a host that follows a device's pointer gets a signal, as with a GPU. What
// is fresh, and what was given back, holds 0xff: NaN as a float of any kind, -1 as an integer.
// Addresses are never dealt out twice, so that whoever uses one too late is found.
#ifndef CUPOLA_TESTS_CUDA_MACHINE_MEMORY_H_
#define CUPOLA_TESTS_CUDA_MACHINE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>

#include "ptx/machine.h"

namespace machine {

class Memory {
 public:
  explicit Memory(size_t bytes);

  // Null where there is no room.
  void* Allocate(size_t bytes);
  // False: it is no allocation, or no longer.
  bool Free(void* data);
  // Page-locked memory of the host.
  void* AllocatePinned(size_t bytes);
  bool FreePinned(void* data);

  // Whether an address is the device's, allocated or not.
  bool IsDevice(const void* data) const;
  bool IsPinned(const void* data) const;
  // Whether all of it lies within one allocation.
  bool Holds(const void* data, size_t bytes) const;

  size_t total() const { return total_; }
  size_t available() const { return total_ - used_; }
  // What kernels may touch.
  const ptx::Ranges& ranges() const { return ranges_; }

  // As long as it lives, the process may touch what is allocated.
  class Opened {
   public:
    explicit Opened(Memory* memory) : memory_(memory) { memory_->Protect(true); }
    ~Opened() { memory_->Protect(false); }
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;

   private:
    Memory* const memory_;
  };

 private:
  void Protect(bool open);

  const size_t total_;
  size_t used_ = 0;
  char* begin_;
  char* next_;                               // behind all that was ever dealt out
  std::map<const char*, size_t> allocated_;  // bytes, by address
  std::map<const char*, size_t> pinned_;
  ptx::Ranges ranges_;
};

}  // namespace machine

#endif  // CUPOLA_TESTS_CUDA_MACHINE_MEMORY_H_
