#include "device/opencl/memory.h"

#include <algorithm>
#include <string>

namespace cupola::opencl {

namespace {

// Sizes are multiples of the largest element that a kernel reads at once.
constexpr uint64_t kGranule = 16;

SharedMem Shared(const Gpu& gpu, Mem mem) {
  return {mem, [&api = gpu.api()](Mem released) {
            if (released != nullptr) api.ReleaseMemObject(released);
          }};
}

}  // namespace

Buffer::Buffer(const Gpu& gpu, uint64_t bytes) : bytes_(bytes) {
  Status status = kSuccess;
  whole_ =
      Shared(gpu, gpu.api().CreateBuffer(gpu.context(), kMemReadWrite, bytes, nullptr, &status));
  Check(status, "making a buffer of " + std::to_string(bytes) + " bytes");
}

const SharedMem& Buffer::From(const Gpu& gpu, uint64_t offset) {
  if (offset == 0) return whole_;
  const auto found = parts_.find(offset);
  if (found != parts_.end()) return found->second;
  const uint64_t alignment = gpu.description().alignment;
  if (offset % alignment != 0) {
    Raise("a tensor begins at byte " + std::to_string(offset) + " of a buffer, but " +
          gpu.description().name + " takes multiples of " + std::to_string(alignment));
  }
  Status status = kSuccess;
  const BufferRegion region{offset, bytes_ - offset};
  SharedMem part = Shared(gpu, gpu.api().CreateSubBuffer(whole_.get(), kMemReadWrite,
                                                         kBufferCreateRegion, &region, &status));
  Check(status, "making a buffer within another one");
  return parts_.emplace(offset, std::move(part)).first->second;
}

void* Memory::Alloc(uint64_t bytes) {
  const uint64_t rounded = std::max(kGranule, (bytes + kGranule - 1) / kGranule * kGranule);
  const uint64_t most = gpu_->description().max_tensor_bytes;
  if (rounded > most) {
    Raise("a tensor of " + std::to_string(bytes) + " bytes is too large for " +
          gpu_->description().name + ", where one may have " + std::to_string(most));
  }
  return table_.Add(Buffer(*gpu_, rounded));
}

const SharedMem& Memory::Argument(const void* address) const {
  const Place place = table_.At(address);
  // A tensor without elements may begin at the end.
  if (place.bytes == 0) return place.buffer->whole();
  return place.buffer->From(*gpu_, place.offset);
}

}  // namespace cupola::opencl
