#include "device/webgpu/memory.h"

#include <algorithm>
#include <string>
#include <utility>

namespace cupola::wgpu {

namespace {

// Sizes are multiples of the largest element that a kernel reads at once.
constexpr uint64_t kGranule = 16;

}  // namespace

OwnedBuffer::OwnedBuffer(Gpu* gpu, Flags usage, uint64_t bytes) : gpu_(gpu), bytes_(bytes) {
  BufferDescriptor descriptor{};
  descriptor.usage = usage;
  descriptor.size = bytes;
  gpu_->Check("making a buffer");
  buffer_ = gpu_->api().DeviceCreateBuffer(gpu_->device(), &descriptor);
  try {
    gpu_->Check("making a buffer");
    if (buffer_ == nullptr) Raise("WebGPU out of memory (while making a buffer)");
  } catch (...) {
    if (buffer_ != nullptr) gpu_->api().BufferRelease(buffer_);
    throw;
  }
}

OwnedBuffer::~OwnedBuffer() {
  if (buffer_ == nullptr) return;
  gpu_->api().BufferDestroy(buffer_);  // also where a bind group still names it
  gpu_->api().BufferRelease(buffer_);
}

OwnedBuffer::OwnedBuffer(OwnedBuffer&& other) noexcept
    : gpu_(other.gpu_), buffer_(std::exchange(other.buffer_, nullptr)), bytes_(other.bytes_) {}

OwnedBuffer& OwnedBuffer::operator=(OwnedBuffer&& other) noexcept {
  std::swap(gpu_, other.gpu_);
  std::swap(buffer_, other.buffer_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void* Memory::Alloc(uint64_t bytes) {
  const uint64_t rounded = std::max(kGranule, (bytes + kGranule - 1) / kGranule * kGranule);
  const uint64_t most =
      std::min(gpu_->limits().max_buffer_bytes, gpu_->limits().max_storage_binding_bytes);
  if (rounded > most) {
    Raise("a tensor of " + std::to_string(bytes) + " bytes is too large for " +
          gpu_->description().name + ", where one may have " + std::to_string(most));
  }
  return table_.Add(OwnedBuffer(gpu_, kUsageStorage | kUsageCopySrc | kUsageCopyDst, rounded));
}

Place Memory::At(const void* address) const {
  const auto place = table_.At(address);
  return {place.buffer->get(), place.serial, place.offset, place.bytes};
}

}  // namespace cupola::wgpu
