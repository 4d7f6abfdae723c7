// Everything that belongs to one WebGPU device in use, and the lock around it.
#ifndef CUPOLA_DEVICE_WEBGPU_CONTEXT_H_
#define CUPOLA_DEVICE_WEBGPU_CONTEXT_H_

#include <mutex>
#include <string>

#include "device/webgpu/commands.h"
#include "device/webgpu/gpu.h"
#include "device/webgpu/memory.h"

namespace cupola::wgpu {

struct Context {
  Context(const Adapters& adapters, size_t index)
      : gpu(adapters, index), memory(&gpu), commands(&gpu) {}

  std::mutex mutex;  // around memory and commands
  Gpu gpu;
  Memory memory;
  Commands commands;
};

// Loads wgpu-native from `path` unless that is done. Throws std::runtime_error with one sentence.
const Adapters& LoadAdapters(const std::string& path);

// The device with this number, opened on first use. Throws ffi::Error if there is none, or if
// LoadAdapters was not called. It lives as long as the process.
Context* ContextOf(int index);

// The device that the calling thread's kernels run on.
int CurrentDevice();
void SetCurrentDevice(int index);

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_CONTEXT_H_
