#include "device/webgpu/context.h"

#include <tvm/ffi/error.h>

#include <memory>
#include <mutex>

namespace cupola::wgpu {

namespace ffi = tvm::ffi;

namespace {

class WebGpuPlugin final : public DevicePlugin {
 public:
  WebGpuPlugin() : DevicePlugin("WebGPU", kDLWebGPU) {}

  const Adapters& Load(const std::string& path) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (adapters_ == nullptr) adapters_ = std::make_unique<Adapters>(LoadApi(path));
    return *adapters_;
  }

 protected:
  size_t CountDevices() final { return Loaded().size(); }
  std::unique_ptr<DeviceContext> Open(size_t index) final {
    return std::make_unique<Context>(Loaded(), index);
  }

 private:
  const Adapters& Loaded() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (adapters_ == nullptr) Raise("wgpu-native is not loaded");
    return *adapters_;
  }

  std::mutex mutex_;
  std::unique_ptr<Adapters> adapters_;
};

WebGpuPlugin* ThePlugin() {
  static auto* plugin = new WebGpuPlugin();
  return plugin;
}

}  // namespace

ffi::Any Context::Attribute(DeviceAttr attr) const {
  const AdapterDescription& adapter = gpu.description();
  switch (attr) {
    case DeviceAttr::kMaxThreadsPerBlock:
      return int64_t{adapter.limits.max_workgroup_invocations};
    case DeviceAttr::kMaxSharedMemoryPerBlock:
      return int64_t{adapter.limits.max_workgroup_storage_bytes};
    case DeviceAttr::kDeviceName:
      return ffi::String(adapter.name);
    case DeviceAttr::kDriverVersion:
      return ffi::String(adapter.driver);
    default:
      return ffi::Any();
  }
}

void Context::Free(void* address) {
  try {
    commands.Submit();
  } catch (const ffi::Error&) {
    commands.Abandon();  // whoever waits for those commands hears of it
  }
  memory.Free(address);
}

void Context::Copy(const void* from, void* to, uint64_t bytes) {
  gpu.Check("copying");
  commands.Copy(memory.At(from), memory.At(to), bytes);
}

void Context::Upload(const void* from, void* to, uint64_t bytes) {
  gpu.Check("copying");
  commands.Upload(from, memory.At(to), bytes);
}

void Context::Download(const void* from, void* to, uint64_t bytes) {
  gpu.Check("copying");
  commands.Download(memory.At(from), to, bytes);
}

const Adapters& LoadAdapters(const std::string& path) { return ThePlugin()->Load(path); }

DevicePlugin* Plugin() { return ThePlugin(); }

}  // namespace cupola::wgpu
