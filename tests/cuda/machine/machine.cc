#include "machine.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <utility>

namespace machine {

// Never destroyed: other libraries' destructors still call.
Machine& Machine::Get() {
  static auto* machine = new Machine();
  return *machine;
}

Machine::Machine()
    : model_(ModelOfEnvironment()),
      memory_(model_.memory_bytes),
      legacy_(std::make_unique<CUstream_st>()) {}

CUstream_st* Machine::StreamOf(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return legacy_.get();
  return streams_.count(handle) > 0 ? handle : nullptr;
}

CUstream_st* Machine::MakeStream(bool blocking) {
  auto* stream = new CUstream_st();
  stream->blocking = blocking;
  streams_.insert(stream);
  return stream;
}

// What was asked of it is done in its time.
void Machine::DestroyStream(CUstream_st* stream) {
  if (stream->captured != nullptr) --num_captures_;
  if (stream->last != nullptr && !stream->last->done) left_.push_back(stream->last);
  streams_.erase(stream);
  delete stream;
}

// The legacy stream waits for all blocking ones, and they wait for it.
std::vector<WorkPtr> Machine::Before(CUstream_st* stream) const {
  std::vector<WorkPtr> before = {stream->last};
  if (stream == legacy_.get()) {
    for (const CUstream_st* other : streams_) {
      if (other->blocking) before.push_back(other->last);
    }
  } else if (stream->blocking) {
    before.push_back(legacy_->last);
  }
  const auto nothing = [](const WorkPtr& work) { return work == nullptr || work->done; };
  before.erase(std::remove_if(before.begin(), before.end(), nothing), before.end());
  return before;
}

cudaError_t Machine::Enqueue(CUstream_st* stream, std::function<void()> run) {
  if (dead_ != cudaSuccess) return dead_;
  if (stream->captured != nullptr) {
    if (stream->invalidated) return cudaErrorStreamCaptureInvalidated;
    stream->captured->steps.push_back(std::move(run));
    return cudaSuccess;
  }
  for (CUstream_st* other : streams_) {
    if (stream != legacy_.get() || !other->blocking || other->captured == nullptr) continue;
    other->invalidated = true;
    return cudaErrorStreamCaptureImplicit;
  }
  stream->last = std::make_shared<Work>(Work{Before(stream), std::move(run)});
  return cudaSuccess;
}

WorkPtr Machine::MarkOf(CUstream_st* stream) {
  return std::make_shared<Work>(Work{Before(stream), [] {}});
}

void Machine::WaitFor(CUstream_st* stream, const WorkPtr& mark) {
  std::vector<WorkPtr> before = Before(stream);
  if (mark != nullptr) before.push_back(mark);
  stream->last = std::make_shared<Work>(Work{std::move(before), [] {}});
}

cudaError_t Machine::Await(const WorkPtr& work) {
  if (dead_ != cudaSuccess) return dead_;
  try {
    const Memory::Opened opened(&memory_);
    Finish(work);
  } catch (const std::exception& error) {
    Die(error.what());
  }
  return dead_;
}

cudaError_t Machine::AwaitStream(CUstream_st* stream) {
  if (stream->captured != nullptr) {
    stream->invalidated = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  return Await(MarkOf(stream));
}

cudaError_t Machine::AwaitDevice() {
  std::vector<WorkPtr> all = std::exchange(left_, {});
  all.push_back(legacy_->last);
  for (const CUstream_st* stream : streams_) all.push_back(stream->last);
  for (const WorkPtr& work : all) Await(work);
  return dead_;
}

// A kernel's fault ends the context.
void Machine::Die(const std::string& why) {
  dead_ = why.find("outside") != why.npos ? cudaErrorIllegalAddress : cudaErrorLaunchFailure;
  journal_.Note("fault: " + why);
  std::fprintf(stderr, "cuda stand-in: %s\n", why.c_str());
}

cudaError_t Machine::BeginCapture(CUstream_st* stream, cudaStreamCaptureMode mode) {
  if (stream == legacy_.get()) return cudaErrorStreamCaptureUnsupported;
  if (stream->captured != nullptr) return cudaErrorIllegalState;
  stream->captured = std::make_unique<Captured>();
  stream->mode = mode;
  stream->thread = std::this_thread::get_id();
  stream->invalidated = false;
  ++num_captures_;
  return cudaSuccess;
}

cudaError_t Machine::EndCapture(CUstream_st* stream, Captured* captured) {
  if (stream->captured == nullptr) return cudaErrorIllegalState;
  if (stream->mode != cudaStreamCaptureModeRelaxed &&
      stream->thread != std::this_thread::get_id()) {
    return cudaErrorStreamCaptureWrongThread;
  }
  *captured = std::move(*std::exchange(stream->captured, nullptr));
  --num_captures_;
  return stream->invalidated ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

// Allocation and the like: allowed in this thread while all captures are relaxed.
cudaError_t Machine::Unsafe() {
  for (CUstream_st* stream : streams_) {
    if (stream->captured == nullptr || stream->mode == cudaStreamCaptureModeRelaxed) continue;
    const bool ours = stream->thread == std::this_thread::get_id();
    if (stream->mode == cudaStreamCaptureModeThreadLocal && !ours) continue;
    stream->invalidated = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  return cudaSuccess;
}

cudaError_t Machine::Launch(CUgraphExec_st* graph, CUstream_st* stream) {
  const auto run = [captured = graph->captured] {
    for (const auto& step : captured->steps) step();
  };
  if (stream->captured == nullptr && graph->last != nullptr) WaitFor(stream, graph->last);
  const cudaError_t error = Enqueue(stream, run);
  if (error == cudaSuccess && stream->captured == nullptr) graph->last = stream->last;
  return error;
}

}  // namespace machine
