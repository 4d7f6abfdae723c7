// CUDA's runtime library, libcudart.so.13: as much of it as TVM's runtime and Cupola call.
//
// Copies are done when the device comes to them, also those between it and pageable memory: CUDA
// says that they "might be synchronous with respect to host", so nobody may count on it.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "context.h"
#include "machine.h"

using machine::Machine;

namespace {

thread_local cudaError_t last_error = cudaSuccess;

cudaError_t Remembered(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// What every function that needs the device begins with, in `code`.
template <typename Code>
cudaError_t Called(const char* name, const Code& code) {
  machine::EnterContext();
  Machine& machine = Machine::Get();
  const std::lock_guard<std::mutex> lock(machine.mutex());
  cudaError_t error = machine.dead();
  if (error == cudaSuccess) {
    error = machine.journal().TakeFailure(name) ? cudaErrorUnknown : code(machine);
    if (error != cudaSuccess) machine.journal().Note(std::string(name) + " failed");
  }
  return Remembered(error);
}

// The same for what takes a stream.
template <typename Code>
cudaError_t OnStream(const char* name, cudaStream_t handle, const Code& code) {
  return Called(name, [&](Machine& machine) {
    CUstream_st* stream = machine.StreamOf(handle);
    return stream != nullptr ? code(machine, stream) : cudaErrorInvalidResourceHandle;
  });
}

// And for what has no place while something is recorded.
template <typename Code>
cudaError_t Apart(const char* name, const Code& code) {
  return Called(name, [&](Machine& machine) {
    if (machine.capturing()) machine.journal().Note(std::string(name) + " while recording");
    const cudaError_t error = machine.Unsafe();
    return error != cudaSuccess ? error : code(machine);
  });
}

// Whether a copy's ends are where its kind says.
bool IsSound(Machine& machine, const void* to, const void* from, size_t bytes,
             cudaMemcpyKind kind) {
  const bool to_device = machine.memory().IsDevice(to);
  const bool from_device = machine.memory().IsDevice(from);
  if (to_device && !machine.memory().Holds(to, bytes)) return false;
  if (from_device && !machine.memory().Holds(from, bytes)) return false;
  if (to_device && from_device) {  // what overlaps comes out undefined
    const auto begin = reinterpret_cast<uintptr_t>(to), other = reinterpret_cast<uintptr_t>(from);
    if (begin < other + bytes && other < begin + bytes) return false;
  }
  if (kind == cudaMemcpyDefault) return true;
  return to_device == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) &&
         from_device == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice);
}

bool IsPageable(Machine& machine, const void* data) {
  return !machine.memory().IsDevice(data) && !machine.memory().IsPinned(data);
}

cudaError_t Copy(Machine& machine, CUstream_st* stream, void* to, const void* from, size_t bytes,
                 cudaMemcpyKind kind) {
  const char* what = kind == cudaMemcpyHostToDevice   ? "upload"
                     : kind == cudaMemcpyDeviceToHost ? "download"
                                                      : "copy";
  machine.journal().Note(what);
  if (machine.capturing()) machine.journal().Note(std::string(what) + " while recording");
  if (bytes == 0) return cudaSuccess;
  if (!IsSound(machine, to, from, bytes, kind)) return cudaErrorInvalidValue;
  if (stream->captured != nullptr && (IsPageable(machine, to) || IsPageable(machine, from))) {
    stream->invalidated = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  return machine.Enqueue(stream, [to, from, bytes] { std::memcpy(to, from, bytes); });
}

}  // namespace

extern "C" {

// --- devices and errors

cudaError_t cudaGetDeviceCount(int* count) {
  return Called("cudaGetDeviceCount", [&](Machine&) { return *count = 1, cudaSuccess; });
}

cudaError_t cudaSetDevice(int device) {
  return Called("cudaSetDevice",
                [&](Machine&) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return Called("cudaDeviceGetAttribute", [&](Machine& machine) {
    if (device != 0) return cudaErrorInvalidDevice;
    const auto found = machine.model().Attribute(attribute);
    if (!found.has_value()) return cudaErrorInvalidValue;
    *value = *found;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return Called("cudaGetDeviceProperties", [&](Machine& machine) {
    if (device != 0) return cudaErrorInvalidDevice;
    *properties = machine.model().Properties();
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return Called("cudaDeviceSynchronize", [](Machine& machine) {
    if (machine.capturing()) return cudaErrorStreamCaptureUnsupported;
    return machine.AwaitDevice();
  });
}

cudaError_t cudaPeekAtLastError() { return last_error; }

// One that the context died of stays.
cudaError_t cudaGetLastError() {
  const cudaError_t dead = Machine::Get().dead();
  return dead != cudaSuccess ? dead : std::exchange(last_error, cudaSuccess);
}

const char* cudaGetErrorName(cudaError_t error) { return machine::NameOf(error); }
const char* cudaGetErrorString(cudaError_t error) { return machine::TextOf(error); }

// --- memory

cudaError_t cudaMalloc(void** data, size_t bytes) {
  return Apart("cudaMalloc", [&](Machine& machine) {
    machine.journal().Note("malloc");
    *data = bytes > 0 ? machine.memory().Allocate(bytes) : nullptr;
    return *data == nullptr && bytes > 0 ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}

// Waits for the device.
cudaError_t cudaFree(void* data) {
  if (data == nullptr) return cudaSuccess;
  return Apart("cudaFree", [&](Machine& machine) {
    machine.journal().Note("free");
    const cudaError_t error = machine.AwaitDevice();
    if (error != cudaSuccess) return error;
    return machine.memory().Free(data) ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaMallocHost(void** data, size_t bytes) {
  return Apart("cudaMallocHost", [&](Machine& machine) {
    *data = machine.memory().AllocatePinned(bytes);
    return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}

cudaError_t cudaFreeHost(void* data) {
  if (data == nullptr) return cudaSuccess;
  return Apart("cudaFreeHost", [&](Machine& machine) {
    const cudaError_t error = machine.AwaitDevice();
    if (error != cudaSuccess) return error;
    return machine.memory().FreePinned(data) ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  return Called("cudaMemGetInfo", [&](Machine& machine) {
    *available = machine.memory().available();
    *total = machine.memory().total();
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return OnStream("cudaMemcpyAsync", stream, [&](Machine& machine, CUstream_st* found) {
    return Copy(machine, found, to, from, bytes, kind);
  });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device,
                                size_t bytes, cudaStream_t stream) {
  if (to_device != 0 || from_device != 0) return Remembered(cudaErrorInvalidDevice);
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

// --- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return Called("cudaStreamCreateWithFlags", [&](Machine& machine) {
    machine.journal().Note("stream made, flags " + std::to_string(flags));
    if (flags > cudaStreamNonBlocking) return cudaErrorInvalidValue;
    *stream = machine.MakeStream(flags == cudaStreamDefault);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return OnStream("cudaStreamDestroy", stream, [&](Machine& machine, CUstream_st* found) {
    const bool legacy = found == machine.StreamOf(nullptr);
    machine.journal().Note(legacy ? "stream destroyed: the default one" : "stream destroyed");
    if (legacy) return cudaErrorInvalidResourceHandle;
    machine.DestroyStream(found);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return OnStream("cudaStreamSynchronize", stream, [](Machine& machine, CUstream_st* found) {
    if (machine.capturing()) machine.journal().Note("cudaStreamSynchronize while recording");
    return machine.AwaitStream(found);
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return OnStream("cudaStreamWaitEvent", stream, [&](Machine& machine, CUstream_st* found) {
    if (found->captured != nullptr) return cudaErrorNotSupported;  // graphs of one stream only
    machine.WaitFor(found, event->mark);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return Called("cudaEventCreate",
                [&](Machine&) { return *event = new CUevent_st(), cudaSuccess; });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return Called("cudaEventDestroy", [&](Machine&) { return delete event, cudaSuccess; });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return OnStream("cudaEventRecord", stream, [&](Machine& machine, CUstream_st* found) {
    if (found->captured != nullptr) return cudaErrorNotSupported;  // graphs of one stream only
    event->mark = machine.MarkOf(found);
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return Called("cudaEventSynchronize",
                [&](Machine& machine) { return machine.Await(event->mark); });
}

// The device has no clock.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 0;
  return cudaSuccess;
}

// --- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return OnStream("cudaStreamBeginCapture", stream, [&](Machine& machine, CUstream_st* found) {
    const bool legacy = found == machine.StreamOf(nullptr);
    machine.journal().Note("begin, mode " + std::to_string(mode) +
                           (legacy ? ", on the default stream" : ""));
    return machine.BeginCapture(found, mode);
  });
}

// Asked to fail, it ends the capture nevertheless.
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  auto captured = std::make_unique<CUgraph_st>();
  bool fails = false;
  const cudaError_t error = OnStream("", stream, [&](Machine& machine, CUstream_st* found) {
    fails = machine.journal().TakeFailure("cudaStreamEndCapture");
    const cudaError_t ended = machine.EndCapture(found, &captured->captured);
    if (fails) machine.journal().Note("cudaStreamEndCapture failed");
    machine.journal().Note("end");
    if (ended != cudaSuccess || fails) return ended;
    ++machine.num_graphs;
    *graph = captured.release();
    return cudaSuccess;
  });
  return fails ? Remembered(cudaErrorUnknown) : error;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long flags) {  // NOLINT: CUDA's type
  return Called("cudaGraphInstantiate", [&](Machine& machine) {
    auto captured = std::make_shared<machine::Captured>(graph->captured);
    machine.journal().Note("graph of " + std::to_string(captured->steps.size()) + ", flags " +
                           std::to_string(flags));
    *executable = new CUgraphExec_st{std::move(captured), nullptr};
    ++machine.num_graphs;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return OnStream("cudaGraphLaunch", stream, [&](Machine& machine, CUstream_st* found) {
    const bool legacy = found == machine.StreamOf(nullptr);
    machine.journal().Note("replay of " + std::to_string(executable->captured->steps.size()) +
                           (legacy ? "" : " on another stream"));
    if (machine.capturing()) machine.journal().Note("replay while recording");
    return machine.Launch(executable, found);
  });
}

// What was launched has what it needs.
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return Called("cudaGraphExecDestroy", [&](Machine& machine) {
    if (executable != nullptr) --machine.num_graphs;
    delete executable;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return Called("cudaGraphDestroy", [&](Machine& machine) {
    if (graph != nullptr) --machine.num_graphs;
    delete graph;
    return cudaSuccess;
  });
}

}  // extern "C"
