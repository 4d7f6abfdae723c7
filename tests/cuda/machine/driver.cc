// CUDA's driver library, libcuda.so.1: as much of it as TVM's runtime, Cupola and its tests call.
//
// A thread has a context once it has called the runtime library (cudaSetDevice, or anything that
// needs one); before, what needs one fails here, as it does there.
#include <cuda.h>

#include <cstdio>

#include "context.h"
#include "machine.h"

using machine::Machine;

namespace {

thread_local bool has_context = false;
bool initialized = false;

// What every function that needs a context begins with, in `code`.
template <typename Code>
CUresult InContext(const char* name, const Code& code) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::mutex> lock(machine.mutex());
  if (!has_context) return CUDA_ERROR_INVALID_CONTEXT;
  if (machine.journal().TakeFailure(name)) {
    machine.journal().Note(std::string(name) + " failed");
    return CUDA_ERROR_UNKNOWN;
  }
  if (machine.dead() != cudaSuccess) return static_cast<CUresult>(machine.dead());
  return code(machine);
}

template <typename Code>
CUresult Initialized(const Code& code) {
  return initialized ? code(Machine::Get()) : CUDA_ERROR_NOT_INITIALIZED;
}

}  // namespace

namespace machine {
void EnterContext() { has_context = initialized = true; }
}  // namespace machine

extern "C" {

CUresult cuInit(unsigned flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  initialized = true;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
  return Initialized([&](Machine&) { return *count = 1, CUDA_SUCCESS; });
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return Initialized([&](Machine&) {
    if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
    *device = 0;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  return Initialized([&](Machine& machine) {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    std::snprintf(name, static_cast<size_t>(length), "%s", machine.model().name().c_str());
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return Initialized([&](Machine& machine) {
    const auto found = machine.model().Attribute(attribute);  // the same numbers as the runtime's
    if (device != 0 || !found.has_value()) return CUDA_ERROR_INVALID_VALUE;
    *value = *found;
    return CUDA_SUCCESS;
  });
}

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return InContext("cuModuleLoadData", [&](Machine& machine) {
    if (machine.capturing()) machine.journal().Note("cuModuleLoadData while recording");
    const cudaError_t unsafe = machine.Unsafe();
    if (unsafe != cudaSuccess) return static_cast<CUresult>(unsafe);
    return machine.LoadModule(image, module);
  });
}

CUresult cuModuleUnload(CUmodule module) {
  return InContext("cuModuleUnload",
                   [&](Machine& machine) { return machine.UnloadModule(module); });
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return InContext("cuModuleGetFunction",
                   [&](Machine& machine) { return machine.FindFunction(module, name, function); });
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  return InContext("cuFuncSetAttribute", [&](Machine& machine) {
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    return machine.SetMostShared(function, value);
  });
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** arguments,
                          void** extra) {
  return InContext("cuLaunchKernelEx", [&](Machine& machine) {
    if (extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    const CUstream_st* stream = machine.StreamOf(config->hStream);
    if (stream == nullptr || stream->captured == nullptr) {
      machine.journal().Note(machine.capturing() ? "launch beside the recording" : "launch");
    }
    return machine.LaunchKernel(*config, function, arguments);
  });
}

// No kernel of ours uses copies by tensor maps.
CUresult cuTensorMapEncodeTiled(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                                const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuGetErrorName(CUresult error, const char** name) {
  *name = machine::NameOf(static_cast<cudaError_t>(error));
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = machine::TextOf(static_cast<cudaError_t>(error));
  return CUDA_SUCCESS;
}

// For tests: what no library of NVIDIA's has.
const char* stand_in_written() {
  static std::string lines;
  Machine& machine = Machine::Get();
  const std::lock_guard<std::mutex> lock(machine.mutex());
  lines = machine.journal().TakeLines();
  return lines.c_str();
}

const char* stand_in_executed() {
  static std::string lines;
  Machine& machine = Machine::Get();
  const std::lock_guard<std::mutex> lock(machine.mutex());
  lines = machine.journal().Executed();
  return lines.c_str();
}

int stand_in_alive() { return Machine::Get().num_graphs; }
// The context dies, as of a kernel's fault.
void stand_in_die() {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::mutex> lock(machine.mutex());
  machine.Die("it was asked to");
}
void stand_in_fail(const char* name) { Machine::Get().journal().LetFail(name); }

}  // extern "C"
