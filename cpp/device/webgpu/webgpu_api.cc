#include "device/webgpu/webgpu_api.h"

#include <tvm/ffi/container/tensor.h>

#include <string>

#include "device/webgpu/context.h"
#include "device/webgpu/recorder.h"

namespace cupola::wgpu {

namespace ffi = tvm::ffi;

namespace {

bool IsOurs(DLDevice device) { return device.device_type == kDLWebGPU; }

void CheckScope(const MemoryScope& scope) {
  if (!scope.has_value()) return;
  const std::string name = scope.value();
  if (name.empty() || name == "global") return;
  Raise("WebGPU has no memory of the kind " + name);
}

class WebGpu final : public DeviceApi {
 public:
  void SetDevice(DLDevice device) final { SetCurrentDevice(device.device_id); }

  void GetAttr(DLDevice device, DeviceAttr attr, ffi::Any* result) final {
    if (attr == DeviceAttr::kExist) {
      *result = Exists(device.device_id);
      return;
    }
    const AdapterDescription& adapter = ContextOf(device.device_id)->gpu.description();
    *result = Attribute(adapter, attr);
  }

  size_t GetDataSize(const DLTensor& tensor, MemoryScope scope) final {
    CheckScope(scope);
    return ffi::GetDataSize(tensor);
  }

  void GetTargetProperty(DLDevice, const std::string&, ffi::Any*) final {}

  void* AllocDataSpace(DLDevice device, size_t bytes, size_t, DLDataType) final {
    Context* context = ContextOf(device.device_id);
    const std::lock_guard<std::mutex> lock(context->mutex);
    return context->memory.Alloc(bytes);
  }

  void* AllocDataSpace(DLDevice device, int ndim, const int64_t* shape, DLDataType type,
                       MemoryScope scope) final {
    CheckScope(scope);
    size_t count = 1;
    for (int i = 0; i < ndim; ++i) count *= static_cast<size_t>(shape[i]);
    return AllocDataSpace(device, ffi::GetDataSize(count, type), 0, type);
  }

  void FreeDataSpace(DLDevice device, void* data) final {
    Context* context = ContextOf(device.device_id);
    const std::lock_guard<std::mutex> lock(context->mutex);
    try {
      context->commands.Submit();
    } catch (const ffi::Error&) {
      context->commands.Abandon();  // whoever waits for those commands hears of it
    }
    context->memory.Free(data);
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
    Context* context = ContextOf(device.device_id);
    const std::lock_guard<std::mutex> lock(context->mutex);
    context->commands.Wait();
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
    Context* context = ContextOf((IsOurs(from_device) ? from_device : to_device).device_id);
    const std::lock_guard<std::mutex> lock(context->mutex);
    context->gpu.Check("copying");
    try {
      if (IsOurs(from_device) && IsOurs(to_device)) {
        if (from_device.device_id != to_device.device_id) {
          Raise("a copy between two WebGPU devices has to go through the host");
        }
        context->commands.Copy(context->memory.At(from, from_offset),
                               context->memory.At(to, to_offset), bytes);
      } else if (IsOurs(from_device)) {
        context->commands.Download(context->memory.At(from, from_offset),
                                   static_cast<char*>(to) + to_offset, bytes);
      } else {
        context->commands.Upload(static_cast<const char*>(from) + from_offset,
                                 context->memory.At(to, to_offset), bytes);
      }
    } catch (...) {
      context->commands.Abandon();
      throw;
    }
  }

 private:
  static bool Exists(int index) {
    try {
      ContextOf(index);
      return true;
    } catch (const ffi::Error&) {
      return false;
    }
  }

  static ffi::Any Attribute(const AdapterDescription& adapter, DeviceAttr attr) {
    const Limits& limits = adapter.limits;
    switch (attr) {
      case DeviceAttr::kMaxThreadsPerBlock:
        return int64_t{limits.max_workgroup_invocations};
      case DeviceAttr::kMaxSharedMemoryPerBlock:
        return int64_t{limits.max_workgroup_storage_bytes};
      case DeviceAttr::kDeviceName:
        return ffi::String(adapter.name);
      case DeviceAttr::kDriverVersion:
        return ffi::String(adapter.driver);
      default:
        return ffi::Any();  // None: WebGPU does not say
    }
  }
};

}  // namespace

DeviceApi* WebGpuApi() {
  static auto* api = new WebGpu();
  return api;
}

}  // namespace cupola::wgpu
