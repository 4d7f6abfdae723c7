#include "device/opencl/commands.h"

namespace cupola::opencl {

namespace {

constexpr Bool kBlocking = 1, kNotBlocking = 0;
// Small uploads are kept for the driver, so that the queue need not be empty for them.
constexpr uint64_t kSmallUpload = 256 << 10;
constexpr uint64_t kMostUploads = 16 << 20;
// A driver may wait for more before it starts; the device need not.
constexpr int kKernelsPerFlush = 32;

}  // namespace

Commands::Commands(const Gpu* gpu) : gpu_(gpu), api_(gpu->api()), queue_(MakeQueue(0)) {}

Queue Commands::MakeQueue(Flags flags) const {
  Status status = kSuccess;
  const Queue queue = api_.CreateCommandQueue(gpu_->context(), gpu_->device(), flags, &status);
  Check(status, "making a queue");
  return queue;
}

void Commands::Add(const Dispatch& dispatch) {
  const auto check = [&](Status status) {
    if (status != kSuccess) Check(status, "calling the kernel " + *dispatch.name);
  };
  for (const auto& [index, buffer] : dispatch.buffers) {
    const Mem mem = buffer.get();
    check(api_.SetKernelArg(dispatch.kernel, index, sizeof(mem), &mem));
  }
  for (const Dispatch::Scalar& scalar : dispatch.scalars) {
    check(api_.SetKernelArg(dispatch.kernel, scalar.index, scalar.bytes, &scalar.bits));
  }
  const bool measured = plain_queue_ != nullptr;
  Event event = nullptr;
  check(api_.EnqueueNDRangeKernel(queue_, dispatch.kernel, 3, nullptr, dispatch.threads,
                                  dispatch.block, 0, nullptr, measured ? &event : nullptr));
  if (measured) measured_.push_back({*dispatch.name, event});
  if (++kernels_since_flush_ < kKernelsPerFlush) return;
  kernels_since_flush_ = 0;
  Check(api_.Flush(queue_), "starting kernels");
}

void Commands::Copy(const Memory::Place& from, const Memory::Place& to, uint64_t bytes) {
  Check(api_.EnqueueCopyBuffer(queue_, from.buffer->whole().get(), to.buffer->whole().get(),
                               from.offset, to.offset, bytes, 0, nullptr, nullptr),
        "copying on the device");
}

void Commands::Upload(const void* from, const Memory::Place& to, uint64_t bytes) {
  const bool small = bytes <= kSmallUpload;
  if (small) {
    if (upload_bytes_ + bytes > kMostUploads) Wait();
    const auto* data = static_cast<const uint8_t*>(from);
    from = uploads_.emplace_back(data, data + bytes).data();
    upload_bytes_ += bytes;
  }
  Check(api_.EnqueueWriteBuffer(queue_, to.buffer->whole().get(), small ? kNotBlocking : kBlocking,
                                to.offset, bytes, from, 0, nullptr, nullptr),
        "writing to the device");
}

void Commands::Download(const Memory::Place& from, void* to, uint64_t bytes) {
  Check(api_.EnqueueReadBuffer(queue_, from.buffer->whole().get(), kBlocking, from.offset, bytes,
                               to, 0, nullptr, nullptr),
        "reading from the device");
  uploads_.clear();
  upload_bytes_ = 0;
}

void Commands::Wait() {
  Check(api_.Finish(queue_), "waiting for the device");
  uploads_.clear();
  upload_bytes_ = 0;
}

void Commands::StartProfile() {
  Wait();
  if (plain_queue_ != nullptr) return;
  plain_queue_ = std::exchange(queue_, MakeQueue(kQueueProfiling));
}

std::vector<KernelTime> Commands::StopProfile() {
  Wait();
  if (plain_queue_ == nullptr) return {};
  api_.ReleaseCommandQueue(queue_);
  queue_ = plain_queue_;
  plain_queue_ = nullptr;
  KernelTimes times;
  for (const Measured& one : measured_) {
    times.Add(one.kernel, MicrosecondsOf(one.event));
    api_.ReleaseEvent(one.event);
  }
  measured_.clear();
  return times.Sorted();
}

double Commands::MicrosecondsOf(Event event) const {
  uint64_t begin = 0, end = 0;  // nanoseconds
  api_.GetEventProfilingInfo(event, kProfilingStart, sizeof(begin), &begin, nullptr);
  api_.GetEventProfilingInfo(event, kProfilingEnd, sizeof(end), &end, nullptr);
  return static_cast<double>(end - begin) / 1e3;
}

}  // namespace cupola::opencl
