#include "device/webgpu/commands.h"

#include <algorithm>
#include <cstring>

namespace cupola::wgpu {

namespace {

constexpr uint64_t kUniformBytes = 1 << 20;
constexpr uint64_t kWord = 4;  // copies begin and end at multiples of it
// Uploads wait in host memory until they are submitted.
constexpr uint64_t kUploadPiece = 16 << 20;
constexpr uint64_t kMostPendingUploads = 64 << 20;

uint64_t RoundUp(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// A buffer of at least `bytes`, which grows so that it is seldom made anew.
Buffer Grown(std::optional<OwnedBuffer>* buffer, Gpu* gpu, Flags usage, uint64_t bytes) {
  if (!buffer->has_value() || (*buffer)->bytes() < bytes) {
    buffer->reset();
    const uint64_t roomy = std::max<uint64_t>(RoundUp(bytes + bytes / 2, 4096), 4096);
    buffer->emplace(gpu, usage, std::min(roomy, gpu->limits().max_buffer_bytes));
  }
  return (*buffer)->get();
}

}  // namespace

Commands::Commands(Gpu* gpu)
    : gpu_(gpu), uniforms_(gpu, kUsageUniform | kUsageCopyDst, kUniformBytes) {}

uint32_t Commands::AddUniform(const std::vector<uint32_t>& scalars) {
  const size_t bytes = scalars.size() * sizeof(scalars[0]);
  if (uniform_data_.size() + kMaxUniformBytes > kUniformBytes) Submit();
  if (profiler_ != nullptr && profiler_->full()) Submit();
  const size_t begin = uniform_data_.size();
  const uint64_t alignment = gpu_->limits().min_uniform_offset_alignment;
  uniform_data_.resize(begin + RoundUp(bytes, std::max(alignment, kWord)));
  std::memcpy(uniform_data_.data() + begin, scalars.data(), bytes);
  return static_cast<uint32_t>(begin);
}

void Commands::Add(const Dispatch& dispatch) {
  const Api& api = gpu_->api();
  const uint32_t uniform = AddUniform(dispatch.scalars);
  const ComputePassEncoder pass = Pass(*dispatch.kernel);
  const Grid& grid = dispatch.grid;
  api.ComputePassEncoderSetPipeline(pass, dispatch.pipeline);
  api.ComputePassEncoderSetBindGroup(pass, 0, dispatch.arguments.get(), 1, &uniform);
  api.ComputePassEncoderDispatchWorkgroups(pass, grid.x, grid.y, grid.z);
}

void Commands::Copy(const Place& from, const Place& to, uint64_t bytes) {
  if (bytes == 0) return;
  if (bytes % kWord == 0 && from.offset % kWord == 0 && to.offset % kWord == 0) {
    CopyWithin(from, to, bytes);
    return;
  }
  std::vector<uint8_t> on_host(bytes);
  Download(from, on_host.data(), bytes);
  Upload(on_host.data(), to, bytes);
}

void Commands::CopyWithin(const Place& from, const Place& to, uint64_t bytes) {
  EndPass();
  const Api& api = gpu_->api();
  if (from.buffer != to.buffer) {
    api.CommandEncoderCopyBufferToBuffer(Encoder(), from.buffer, from.offset, to.buffer, to.offset,
                                         bytes);
    return;
  }
  if (!scratch_.has_value() || scratch_->bytes() < bytes) Submit();  // what uses the old one
  const Buffer scratch = Grown(&scratch_, gpu_, kUsageCopySrc | kUsageCopyDst, bytes);
  api.CommandEncoderCopyBufferToBuffer(Encoder(), from.buffer, from.offset, scratch, 0, bytes);
  api.CommandEncoderCopyBufferToBuffer(Encoder(), scratch, 0, to.buffer, to.offset, bytes);
}

void Commands::Upload(const void* from, const Place& to, uint64_t bytes) {
  Submit();  // writes come before all that is submitted later
  const auto* data = static_cast<const uint8_t*>(from);
  const uint64_t whole = to.offset % kWord == 0 ? bytes / kWord * kWord : 0;
  for (uint64_t done = 0; done < whole; done += kUploadPiece) {
    const uint64_t piece = std::min(kUploadPiece, whole - done);
    gpu_->api().QueueWriteBuffer(gpu_->queue(), to.buffer, to.offset + done, data + done, piece);
    pending_uploads_ += piece;
    if (pending_uploads_ >= kMostPendingUploads) {
      gpu_->api().QueueSubmit(gpu_->queue(), 0, nullptr);
      pending_uploads_ = 0;
      gpu_->Wait();
    }
  }
  gpu_->Check("writing to the device");
  if (whole == bytes) return;
  // The rest shares words with its neighbours.
  const uint64_t begin = (to.offset + whole) / kWord * kWord;
  const uint64_t end = RoundUp(to.offset + bytes, kWord);
  std::vector<uint8_t> words(end - begin);
  const Place place{to.buffer, to.serial, begin, end - begin};
  Download(place, words.data(), words.size());
  std::memcpy(words.data() + (to.offset + whole - begin), data + whole, bytes - whole);
  Upload(words.data(), place, words.size());
}

void Commands::Download(const Place& from, void* to, uint64_t bytes) {
  if (bytes == 0) return;
  const Api& api = gpu_->api();
  const uint64_t begin = from.offset / kWord * kWord;
  const uint64_t size = RoundUp(from.offset + bytes, kWord) - begin;
  const Buffer staging = Grown(&staging_, gpu_, kUsageMapRead | kUsageCopyDst, size);
  EndPass();
  api.CommandEncoderCopyBufferToBuffer(Encoder(), from.buffer, begin, staging, 0, size);
  Submit();
  bool mapped = false;
  CallbackInfo<BufferMapCallback> done{};
  done.mode = CallbackMode::kAllowSpontaneous;
  done.callback = [](MapAsyncStatus status, StringView, void* mapped, void*) {
    *static_cast<bool*>(mapped) = status == MapAsyncStatus::kSuccess;
  };
  done.user_data[0] = &mapped;
  api.BufferMapAsync(staging, kMapRead, 0, size, done);
  gpu_->Wait();
  gpu_->Check("reading from the device");
  if (!mapped) Raise("WebGPU could not read from the device");
  const auto* data = static_cast<const uint8_t*>(api.BufferGetConstMappedRange(staging, 0, size));
  std::memcpy(to, data + (from.offset - begin), bytes);
  api.BufferUnmap(staging);
}

void Commands::Submit() {
  EndPass();
  if (encoder_ == nullptr) return;
  const Api& api = gpu_->api();
  if (profiler_ != nullptr) profiler_->Resolve(encoder_);
  const CommandBuffer commands = api.CommandEncoderFinish(encoder_, nullptr);
  api.CommandEncoderRelease(encoder_);
  encoder_ = nullptr;
  const std::vector<uint8_t> uniform_data = std::move(uniform_data_);
  uniform_data_.clear();
  try {
    gpu_->Check("preparing kernels");  // what is wrong with them would be an error again below
    if (!uniform_data.empty()) {
      api.QueueWriteBuffer(gpu_->queue(), uniforms_.get(), 0, uniform_data.data(),
                           uniform_data.size());
    }
    api.QueueSubmit(gpu_->queue(), 1, &commands);
    pending_uploads_ = 0;
  } catch (...) {
    api.CommandBufferRelease(commands);
    throw;
  }
  api.CommandBufferRelease(commands);
  gpu_->Check("submitting kernels");
  if (profiler_ != nullptr) {
    profiler_->Collect(
        [this](const Place& from, void* to, uint64_t bytes) { Download(from, to, bytes); });
  }
}

void Commands::Wait() {
  Submit();
  gpu_->Wait();
  gpu_->Check("waiting for the device");
}

void Commands::Abandon() {
  EndPass();
  if (encoder_ != nullptr) gpu_->api().CommandEncoderRelease(encoder_);
  encoder_ = nullptr;
  uniform_data_.clear();
  gpu_->ClearError();
}

void Commands::StartProfile() {
  Wait();
  profiler_ = std::make_unique<Profiler>(gpu_);
}

std::vector<KernelTime> Commands::StopProfile() {
  Wait();
  if (profiler_ == nullptr) return {};
  std::vector<KernelTime> times = profiler_->Times();
  profiler_ = nullptr;
  return times;
}

CommandEncoder Commands::Encoder() {
  if (encoder_ == nullptr) {
    encoder_ = gpu_->api().DeviceCreateCommandEncoder(gpu_->device(), nullptr);
  }
  return encoder_;
}

ComputePassEncoder Commands::Pass(const std::string& kernel) {
  if (profiler_ == nullptr) {
    if (pass_ == nullptr) pass_ = gpu_->api().CommandEncoderBeginComputePass(Encoder(), nullptr);
    return pass_;
  }
  EndPass();
  const PassTimestampWrites times = profiler_->Next(kernel);
  ComputePassDescriptor descriptor{};
  descriptor.timestamp_writes = &times;
  pass_ = gpu_->api().CommandEncoderBeginComputePass(Encoder(), &descriptor);
  return pass_;
}

void Commands::EndPass() {
  if (pass_ == nullptr) return;
  gpu_->api().ComputePassEncoderEnd(pass_);
  gpu_->api().ComputePassEncoderRelease(pass_);
  pass_ = nullptr;
}

}  // namespace cupola::wgpu
