#include "device/webgpu/wgpu_native.h"

#include <dlfcn.h>

#include <stdexcept>

namespace cupola::wgpu {

namespace {

template <typename Function>
void Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function == nullptr) throw std::runtime_error(std::string("it has no function ") + name);
}

void CheckVersion(const Api& api) {
  const uint32_t version = api.GetVersion();
  if (version >> 8 == kVersion) return;
  const auto text = [](uint32_t v) {
    return std::to_string(v >> 16 & 255) + "." + std::to_string(v >> 8 & 255) + "." +
           std::to_string(v & 255);
  };
  throw std::runtime_error("it is version " + text(version >> 8) + " of wgpu-native, but " +
                           text(kVersion) + " is needed");
}

}  // namespace

Api LoadApi(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: it has threads
  if (library == nullptr) throw std::runtime_error(dlerror());
  Api api;
  Find(library, "wgpuGetVersion", &api.GetVersion);
  CheckVersion(api);
#define CUPOLA_FIND(name) Find(library, "wgpu" #name, &api.name)
  CUPOLA_FIND(CreateInstance);
  CUPOLA_FIND(InstanceEnumerateAdapters);
  CUPOLA_FIND(AdapterGetInfo);
  CUPOLA_FIND(AdapterInfoFreeMembers);
  CUPOLA_FIND(AdapterGetLimits);
  CUPOLA_FIND(AdapterHasFeature);
  CUPOLA_FIND(AdapterRequestDevice);
  CUPOLA_FIND(DeviceGetQueue);
  CUPOLA_FIND(DevicePoll);
  CUPOLA_FIND(DeviceDestroy);
  CUPOLA_FIND(DeviceCreateBuffer);
  CUPOLA_FIND(BufferDestroy);
  CUPOLA_FIND(BufferRelease);
  CUPOLA_FIND(BufferMapAsync);
  CUPOLA_FIND(BufferGetConstMappedRange);
  CUPOLA_FIND(BufferUnmap);
  CUPOLA_FIND(DeviceCreateBindGroupLayout);
  CUPOLA_FIND(BindGroupLayoutRelease);
  CUPOLA_FIND(DeviceCreatePipelineLayout);
  CUPOLA_FIND(PipelineLayoutRelease);
  CUPOLA_FIND(DeviceCreateShaderModule);
  CUPOLA_FIND(ShaderModuleRelease);
  CUPOLA_FIND(DeviceCreateComputePipeline);
  CUPOLA_FIND(ComputePipelineRelease);
  CUPOLA_FIND(DeviceCreateBindGroup);
  CUPOLA_FIND(BindGroupRelease);
  CUPOLA_FIND(DeviceCreateCommandEncoder);
  CUPOLA_FIND(CommandEncoderRelease);
  CUPOLA_FIND(CommandEncoderFinish);
  CUPOLA_FIND(CommandBufferRelease);
  CUPOLA_FIND(CommandEncoderCopyBufferToBuffer);
  CUPOLA_FIND(CommandEncoderResolveQuerySet);
  CUPOLA_FIND(CommandEncoderBeginComputePass);
  CUPOLA_FIND(ComputePassEncoderSetPipeline);
  CUPOLA_FIND(ComputePassEncoderSetBindGroup);
  CUPOLA_FIND(ComputePassEncoderDispatchWorkgroups);
  CUPOLA_FIND(ComputePassEncoderEnd);
  CUPOLA_FIND(ComputePassEncoderRelease);
  CUPOLA_FIND(QueueWriteBuffer);
  CUPOLA_FIND(QueueSubmit);
  CUPOLA_FIND(QueueGetTimestampPeriod);
  CUPOLA_FIND(DeviceCreateQuerySet);
  CUPOLA_FIND(QuerySetRelease);
#undef CUPOLA_FIND
  return api;
}

}  // namespace cupola::wgpu
