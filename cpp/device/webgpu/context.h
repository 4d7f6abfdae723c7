// Everything that belongs to one WebGPU device in use, and the kind of device that it is one of.
#ifndef CUPOLA_DEVICE_WEBGPU_CONTEXT_H_
#define CUPOLA_DEVICE_WEBGPU_CONTEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "device/device_plugin.h"
#include "device/webgpu/commands.h"
#include "device/webgpu/gpu.h"
#include "device/webgpu/memory.h"

namespace cupola::wgpu {

struct Context final : DeviceContext {
  Context(const Adapters& adapters, size_t index)
      : gpu(adapters, index), memory(&gpu), commands(&gpu) {}

  tvm::ffi::Any Attribute(DeviceAttr attr) const final;
  void* Alloc(uint64_t bytes) final { return memory.Alloc(bytes); }
  void Free(void* address) final;
  uint64_t allocated_bytes() const final { return memory.allocated_bytes(); }
  void Copy(const void* from, void* to, uint64_t bytes) final;
  void Upload(const void* from, void* to, uint64_t bytes) final;
  void Download(const void* from, void* to, uint64_t bytes) final;
  void Wait() final { commands.Wait(); }
  void Abandon() final { commands.Abandon(); }
  void StartProfile() final { commands.StartProfile(); }
  std::vector<KernelTime> StopProfile() final { return commands.StopProfile(); }

  Gpu gpu;
  Memory memory;
  Commands commands;
};

// Loads wgpu-native from `path` unless that is done. Throws std::runtime_error with one sentence.
const Adapters& LoadAdapters(const std::string& path);

// Its contexts are of the type above.
DevicePlugin* Plugin();

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_CONTEXT_H_
