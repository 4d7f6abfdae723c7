// Memory on a WebGPU device: buffers, behind addresses that can be added to.
//
// A tensor may begin anywhere in a buffer that bindings may begin at.
// For one thread at a time; commands that use a buffer have to be submitted before it is freed.
#ifndef CUPOLA_DEVICE_WEBGPU_MEMORY_H_
#define CUPOLA_DEVICE_WEBGPU_MEMORY_H_

#include <cstdint>

#include "device/address_table.h"
#include "device/webgpu/gpu.h"
#include "device/webgpu/wgpu_native.h"

namespace cupola::wgpu {

// A buffer of ours, destroyed at the end.
class OwnedBuffer {
 public:
  // Throws ffi::Error when there is no room for it.
  OwnedBuffer(Gpu* gpu, Flags usage, uint64_t bytes);
  ~OwnedBuffer();
  OwnedBuffer(OwnedBuffer&& other) noexcept;
  OwnedBuffer& operator=(OwnedBuffer&& other) noexcept;

  Buffer get() const { return buffer_; }
  uint64_t bytes() const { return bytes_; }

 private:
  Gpu* gpu_;
  Buffer buffer_ = nullptr;
  uint64_t bytes_ = 0;
};

// A place in device memory.
struct Place {
  Buffer buffer;
  uint64_t serial;  // of the allocation; no two have the same
  uint64_t offset;
  uint64_t bytes;  // from there to the end of the buffer
};

class Memory {
 public:
  explicit Memory(Gpu* gpu) : gpu_(gpu) {}

  // Throws ffi::Error with one sentence when the device has no room, or not in one piece.
  void* Alloc(uint64_t bytes);
  void Free(const void* address) { table_.Remove(address); }
  // Throws ffi::Error if nothing is there.
  Place At(const void* address) const;
  uint64_t allocated_bytes() const { return table_.allocated_bytes(); }

 private:
  Gpu* gpu_;
  AddressTable<OwnedBuffer> table_;
};

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_MEMORY_H_
