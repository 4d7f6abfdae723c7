// Everything that belongs to one OpenCL device in use, and the kind of device that it is one of.
#ifndef CUPOLA_DEVICE_OPENCL_CONTEXT_H_
#define CUPOLA_DEVICE_OPENCL_CONTEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "device/device_plugin.h"
#include "device/opencl/commands.h"
#include "device/opencl/gpu.h"
#include "device/opencl/memory.h"

namespace cupola::opencl {

struct Context final : DeviceContext {
  Context(const Devices& devices, size_t index)
      : gpu(devices, index), memory(&gpu), commands(&gpu) {}

  tvm::ffi::Any Attribute(DeviceAttr attr) const final;
  void* Alloc(uint64_t bytes) final { return memory.Alloc(bytes); }
  void Free(void* address) final { memory.Free(address); }
  uint64_t allocated_bytes() const final { return memory.allocated_bytes(); }
  void Copy(const void* from, void* to, uint64_t bytes) final {
    commands.Copy(memory.At(from), memory.At(to), bytes);
  }
  void Upload(const void* from, void* to, uint64_t bytes) final {
    commands.Upload(from, memory.At(to), bytes);
  }
  void Download(const void* from, void* to, uint64_t bytes) final {
    commands.Download(memory.At(from), to, bytes);
  }
  void Wait() final { commands.Wait(); }
  void Abandon() final {}  // errors belong to the call that makes them
  void StartProfile() final { commands.StartProfile(); }
  std::vector<KernelTime> StopProfile() final { return commands.StopProfile(); }

  Gpu gpu;
  Memory memory;
  Commands commands;
};

// Loads the loader of OpenCL's drivers from `path` unless that is done. `preferred` is part of the
// name of the devices that come first, or empty. Throws std::runtime_error with one sentence.
const Devices& LoadDevices(const std::string& path, const std::string& preferred);

// Its contexts are of the type above.
DevicePlugin* Plugin();

}  // namespace cupola::opencl

#endif  // CUPOLA_DEVICE_OPENCL_CONTEXT_H_
