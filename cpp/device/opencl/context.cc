#include "device/opencl/context.h"

#include <memory>
#include <mutex>

namespace cupola::opencl {

namespace ffi = tvm::ffi;

namespace {

class OpenClPlugin final : public DevicePlugin {
 public:
  OpenClPlugin() : DevicePlugin("OpenCL", kDLOpenCL) {}

  const Devices& Load(const std::string& path, const std::string& preferred) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (devices_ == nullptr) devices_ = std::make_unique<Devices>(LoadApi(path), preferred);
    return *devices_;
  }

 protected:
  size_t CountDevices() final { return Loaded().size(); }
  std::unique_ptr<DeviceContext> Open(size_t index) final {
    return std::make_unique<Context>(Loaded(), index);
  }

 private:
  const Devices& Loaded() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (devices_ == nullptr) Raise("OpenCL's library is not loaded");
    return *devices_;
  }

  std::mutex mutex_;
  std::unique_ptr<Devices> devices_;
};

// Never destroyed: drivers end their threads in an order of their own when the process ends.
OpenClPlugin* ThePlugin() {
  static auto* plugin = new OpenClPlugin();
  return plugin;
}

}  // namespace

ffi::Any Context::Attribute(DeviceAttr attr) const {
  const DeviceDescription& device = gpu.description();
  switch (attr) {
    case DeviceAttr::kMaxThreadsPerBlock:
      return static_cast<int64_t>(device.max_threads);
    case DeviceAttr::kMaxSharedMemoryPerBlock:
      return static_cast<int64_t>(device.local_bytes);
    case DeviceAttr::kDeviceName:
      return ffi::String(device.name);
    case DeviceAttr::kApiVersion:
      return ffi::String(device.version);
    case DeviceAttr::kDriverVersion:
      return ffi::String(device.driver);
    case DeviceAttr::kTotalGlobalMemory:
      return static_cast<int64_t>(device.memory_bytes);
    default:
      return ffi::Any();
  }
}

const Devices& LoadDevices(const std::string& path, const std::string& preferred) {
  return ThePlugin()->Load(path, preferred);
}

DevicePlugin* Plugin() { return ThePlugin(); }

}  // namespace cupola::opencl
