#include "device/webgpu/profiler.h"

namespace cupola::wgpu {

Profiler::Profiler(Gpu* gpu)
    : gpu_(gpu), times_(gpu, kUsageQueryResolve | kUsageCopySrc, 2 * kMostKernels * 8) {
  if (!gpu_->description().has_timestamps) {
    Raise("the WebGPU adapter " + gpu_->description().name + " has no clock to measure kernels by");
  }
  QuerySetDescriptor descriptor{};
  descriptor.type = QueryType::kTimestamp;
  descriptor.count = 2 * kMostKernels;
  queries_ = gpu_->api().DeviceCreateQuerySet(gpu_->device(), &descriptor);
  gpu_->Check("preparing to measure");
}

Profiler::~Profiler() { gpu_->api().QuerySetRelease(queries_); }

PassTimestampWrites Profiler::Next(const std::string& kernel) {
  const auto index = static_cast<uint32_t>(2 * kernels_.size());
  kernels_.push_back(kernel);
  return {nullptr, queries_, index, index + 1};
}

void Profiler::Resolve(CommandEncoder encoder) {
  if (kernels_.empty()) return;
  const auto count = static_cast<uint32_t>(2 * kernels_.size());
  gpu_->api().CommandEncoderResolveQuerySet(encoder, queries_, 0, count, times_.get(), 0);
}

void Profiler::Add(const std::vector<std::string>& kernels, const std::vector<uint64_t>& ticks) {
  const double us_per_tick = gpu_->api().QueueGetTimestampPeriod(gpu_->queue()) / 1e3;
  for (size_t i = 0; i < kernels.size(); ++i) {
    const auto elapsed = static_cast<double>(ticks[2 * i + 1] - ticks[2 * i]);
    totals_.Add(kernels[i], elapsed * us_per_tick);
  }
}

}  // namespace cupola::wgpu
