#include "device/webgpu/memory.h"

#include <algorithm>
#include <string>
#include <utility>

namespace cupola::wgpu {

namespace {

constexpr int kOffsetBits = 40;
constexpr uint64_t kOffsetMask = (uint64_t{1} << kOffsetBits) - 1;
// Sizes are multiples of the largest element that a kernel reads at once.
constexpr uint64_t kGranule = 16;

void* Address(uint64_t number) { return reinterpret_cast<void*>((number + 1) << kOffsetBits); }

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
  auto allocation = std::make_unique<Allocation>(Allocation{
      OwnedBuffer(gpu_, kUsageStorage | kUsageCopySrc | kUsageCopyDst, rounded), next_serial_++});
  allocated_bytes_ += rounded;
  if (free_numbers_.empty()) {
    free_numbers_.push_back(static_cast<uint32_t>(allocations_.size()));
    allocations_.emplace_back();
  }
  const uint32_t number = free_numbers_.back();
  free_numbers_.pop_back();
  allocations_[number] = std::move(allocation);
  return Address(number);
}

void Memory::Free(void* address) {
  At(address);
  const uint64_t number = (reinterpret_cast<uint64_t>(address) >> kOffsetBits) - 1;
  allocated_bytes_ -= allocations_[number]->buffer.bytes();
  allocations_[number] = nullptr;
  free_numbers_.push_back(static_cast<uint32_t>(number));
}

Place Memory::At(const void* address, uint64_t offset) const {
  const uint64_t value = reinterpret_cast<uint64_t>(address) + offset;
  const uint64_t number = (value >> kOffsetBits) - 1;
  const Allocation* allocation =
      number < allocations_.size() ? allocations_[number].get() : nullptr;
  const uint64_t begin = value & kOffsetMask;
  if (allocation == nullptr || begin > allocation->buffer.bytes()) {
    Raise("a kernel or a copy was given an address that is not on the WebGPU device");
  }
  return {allocation->buffer.get(), allocation->serial, begin, allocation->buffer.bytes() - begin};
}

}  // namespace cupola::wgpu
