#include "device/device_plugin.h"

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <string>

#include "device/device_error.h"
#include "device/launch_recorder.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

constexpr int kKinds = 32;  // more than DLDeviceType has

thread_local int current_devices[kKinds] = {};

// What TVM's runtime asks of a kind of device.
class PluginApi final : public DeviceApi {
 public:
  explicit PluginApi(DevicePlugin* plugin) : plugin_(plugin) {}

  void SetDevice(DLDevice device) final { plugin_->SetCurrentDevice(device.device_id); }

  void GetAttr(DLDevice device, DeviceAttr attr, ffi::Any* result) final {
    if (attr == DeviceAttr::kExist) {
      *result = Exists(device.device_id);
    } else {
      *result = plugin_->ContextOf(device.device_id)->Attribute(attr);
    }
  }

  size_t GetDataSize(const DLTensor& tensor, MemoryScope scope) final {
    CheckScope(scope);
    return ffi::GetDataSize(tensor);
  }

  void GetTargetProperty(DLDevice, const std::string&, ffi::Any*) final {}

  void* AllocDataSpace(DLDevice device, size_t bytes, size_t, DLDataType) final {
    DeviceContext* context = plugin_->ContextOf(device.device_id);
    const std::lock_guard<std::mutex> lock(context->mutex);
    return context->Alloc(bytes);
  }

  void* AllocDataSpace(DLDevice device, int ndim, const int64_t* shape, DLDataType type,
                       MemoryScope scope) final {
    CheckScope(scope);
    size_t count = 1;
    for (int i = 0; i < ndim; ++i) count *= static_cast<size_t>(shape[i]);
    return AllocDataSpace(device, ffi::GetDataSize(count, type), 0, type);
  }

  void FreeDataSpace(DLDevice device, void* data) final {
    DeviceContext* context = plugin_->ContextOf(device.device_id);
    const std::lock_guard<std::mutex> lock(context->mutex);
    context->Free(data);
  }

  void CopyDataFromTo(DLTensor* from, DLTensor* to, void* stream) final {
    const size_t bytes = ffi::GetDataSize(*from);
    if (bytes != ffi::GetDataSize(*to)) Raise("a copy between tensors of different sizes");
    if (!ffi::IsContiguous(*from) || !ffi::IsContiguous(*to)) {
      Raise("a copy of a tensor that is not in one piece");
    }
    CopyDataFromTo(from->data, from->byte_offset, to->data, to->byte_offset, bytes, from->device,
                   to->device, from->dtype, stream);
  }

  // There is one queue, and so one stream.
  void* CreateStream(DLDevice) final { return nullptr; }
  void FreeStream(DLDevice, void*) final {}
  void SetStream(DLDevice, void*) final {}
  void* GetCurrentStream(DLDevice) final { return nullptr; }
  void SyncStreamFromTo(DLDevice, void*, void*) final {}

  void StreamSync(DLDevice device, void*) final {
    RefuseWhileRecording("a wait");
    DeviceContext* context = plugin_->ContextOf(device.device_id);
    const std::lock_guard<std::mutex> lock(context->mutex);
    context->Wait();
  }

  void* AllocWorkspace(DLDevice device, size_t bytes, DLDataType type) final {
    return AllocDataSpace(device, bytes, 0, type);
  }
  void FreeWorkspace(DLDevice device, void* data) final { FreeDataSpace(device, data); }
  bool SupportsDevicePointerArithmeticsOnHost() final { return true; }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset,
                      size_t bytes, DLDevice from_device, DLDevice to_device, DLDataType,
                      void*) final {
    RefuseWhileRecording("a copy");
    if (bytes == 0) return;
    const bool from_ours = from_device.device_type == plugin_->type();
    const bool to_ours = to_device.device_type == plugin_->type();
    const void* const source = static_cast<const char*>(from) + from_offset;
    void* const target = static_cast<char*>(to) + to_offset;
    DeviceContext* context = plugin_->ContextOf((from_ours ? from_device : to_device).device_id);
    const std::lock_guard<std::mutex> lock(context->mutex);
    try {
      if (!from_ours) {
        context->Upload(source, target, bytes);
      } else if (!to_ours) {
        context->Download(source, target, bytes);
      } else if (from_device.device_id != to_device.device_id) {
        Raise(std::string("a copy between two devices of ") + plugin_->name() +
              " has to go through the host");
      } else {
        context->Copy(source, target, bytes);
      }
    } catch (...) {
      context->Abandon();
      throw;
    }
  }

 private:
  void CheckScope(const MemoryScope& scope) const {
    if (!scope.has_value()) return;
    const std::string name = scope.value();
    if (name.empty() || name == "global") return;
    Raise(std::string(plugin_->name()) + " has no memory of the kind " + name);
  }

  bool Exists(int index) const {
    try {
      plugin_->ContextOf(index);
      return true;
    } catch (const ffi::Error&) {
      return false;
    }
  }

  DevicePlugin* const plugin_;
};

// Never destroyed: drivers end their threads in an order of their own when the process ends.
struct Registered {
  std::mutex mutex;
  DevicePlugin* plugins[kKinds] = {};
};

Registered* TheRegistered() {
  static auto* registered = new Registered();
  return registered;
}

}  // namespace

DeviceContext* DevicePlugin::ContextOf(int index) {
  const std::lock_guard<std::mutex> lock(mutex_);
  contexts_.resize(CountDevices());
  if (index < 0 || static_cast<size_t>(index) >= contexts_.size()) {
    Raise(std::string("there is no ") + name_ + " device " + std::to_string(index) +
          "; this machine has " + std::to_string(contexts_.size()));
  }
  std::unique_ptr<DeviceContext>& context = contexts_[static_cast<size_t>(index)];
  if (context == nullptr) context = Open(static_cast<size_t>(index));
  return context.get();
}

int DevicePlugin::current_device() const { return current_devices[type_]; }

void DevicePlugin::SetCurrentDevice(int index) { current_devices[type_] = index; }

void RegisterPlugin(DevicePlugin* plugin, ffi::Module (*load_module)(const ffi::Bytes&)) {
  CheckDeviceAbi();
  Registered* registered = TheRegistered();
  const std::lock_guard<std::mutex> lock(registered->mutex);
  if (registered->plugins[plugin->type()] != nullptr) return;
  registered->plugins[plugin->type()] = plugin;
  const std::string kind = DeviceKindName(plugin->type());
  auto* api = new PluginApi(plugin);  // TVM's runtime keeps it
  ffi::Function::SetGlobal(
      "device_api." + kind,
      ffi::Function::FromTyped([api]() -> void* { return static_cast<DeviceApi*>(api); }), true);
  ffi::Function::SetGlobal("ffi.Module.load_from_bytes." + kind,
                           ffi::Function::FromTyped(load_module), true);
}

DevicePlugin* PluginOf(DLDeviceType type) {
  Registered* registered = TheRegistered();
  const std::lock_guard<std::mutex> lock(registered->mutex);
  DevicePlugin* plugin = type < kKinds ? registered->plugins[type] : nullptr;
  if (plugin == nullptr) Raise(std::string("Cupola does not drive devices of this kind itself"));
  return plugin;
}

}  // namespace cupola
