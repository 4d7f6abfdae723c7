// Memory on an OpenCL device: buffers, behind addresses that can be added to.
//
// A kernel takes buffers, not places in them: where a tensor begins within a buffer it is given a
// buffer within that one, which is kept as long as the outer one. For one thread at a time.
#ifndef CUPOLA_DEVICE_OPENCL_MEMORY_H_
#define CUPOLA_DEVICE_OPENCL_MEMORY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <type_traits>

#include "device/address_table.h"
#include "device/opencl/gpu.h"

namespace cupola::opencl {

// Released with its last owner.
using SharedMem = std::shared_ptr<std::remove_pointer_t<Mem>>;

class Buffer {
 public:
  // Throws ffi::Error when there is no room for it.
  Buffer(const Gpu& gpu, uint64_t bytes);

  const SharedMem& whole() const { return whole_; }
  uint64_t bytes() const { return bytes_; }
  // All of it behind `offset`.
  const SharedMem& From(const Gpu& gpu, uint64_t offset);

 private:
  SharedMem whole_;
  uint64_t bytes_;
  std::map<uint64_t, SharedMem> parts_;  // by offset
};

class Memory {
 public:
  using Place = AddressTable<Buffer>::Place;

  explicit Memory(const Gpu* gpu) : gpu_(gpu) {}

  // Throws ffi::Error with one sentence when the device has no room, or not in one piece.
  void* Alloc(uint64_t bytes);
  // Commands that use it are not disturbed.
  void Free(const void* address) { table_.Remove(address); }
  // Throws ffi::Error if nothing is there.
  Place At(const void* address) const { return table_.At(address); }
  // What a kernel is given of it.
  const SharedMem& Argument(const void* address) const;
  uint64_t allocated_bytes() const { return table_.allocated_bytes(); }

 private:
  const Gpu* gpu_;
  AddressTable<Buffer> table_;
};

}  // namespace cupola::opencl

#endif  // CUPOLA_DEVICE_OPENCL_MEMORY_H_
