// WebGPU as Python sees it: cupola.webgpu.*, and what TVM's runtime looks up by name.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/container/tuple.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include <string>

#include "device/device_api.h"
#include "device/webgpu/context.h"
#include "device/webgpu/module.h"
#include "device/webgpu/webgpu_api.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

using Properties = ffi::Map<ffi::String, ffi::Any>;
using KernelTuple = ffi::Tuple<ffi::String, int64_t, double>;  // name, calls, microseconds

// What the adapters are, in the order of their numbers.
ffi::Array<Properties> Load(const ffi::String& path) {
  const wgpu::Adapters& adapters = wgpu::LoadAdapters(path);
  ffi::Array<Properties> result;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const wgpu::AdapterDescription adapter = adapters.Describe(i);
    Properties properties;
    properties.Set("name", ffi::String(adapter.name));
    properties.Set("driver", ffi::String(adapter.driver));
    properties.Set("backend", ffi::String(wgpu::BackendName(adapter.backend)));
    properties.Set("type", ffi::String(wgpu::AdapterTypeName(adapter.type)));
    properties.Set("max_buffer_bytes", static_cast<int64_t>(adapter.limits.max_buffer_bytes));
    properties.Set("max_binding_bytes",
                   static_cast<int64_t>(adapter.limits.max_storage_binding_bytes));
    properties.Set("max_storage_buffers", int64_t{adapter.limits.max_storage_buffers});
    properties.Set("max_threads", int64_t{adapter.limits.max_workgroup_invocations});
    properties.Set("shared_bytes", int64_t{adapter.limits.max_workgroup_storage_bytes});
    properties.Set("f16", adapter.has_f16);
    properties.Set("subgroups", adapter.has_subgroups);
    properties.Set("timestamps", adapter.has_timestamps);
    result.push_back(properties);
  }
  return result;
}

// Makes TVM's runtime, which has to be loaded, use WebGPU through us.
void Register() {
  CheckDeviceAbi();
  ffi::Function::SetGlobal("device_api.webgpu",
                           ffi::Function::FromTyped([]() -> void* { return wgpu::WebGpuApi(); }),
                           true);
  ffi::Function::SetGlobal("ffi.Module.load_from_bytes.webgpu",
                           ffi::Function::FromTyped(wgpu::LoadModule), true);
}

void StartProfile(int64_t device) {
  wgpu::Context* context = wgpu::ContextOf(static_cast<int>(device));
  const std::lock_guard<std::mutex> lock(context->mutex);
  context->commands.StartProfile();
}

ffi::Array<KernelTuple> StopProfile(int64_t device) {
  wgpu::Context* context = wgpu::ContextOf(static_cast<int>(device));
  const std::lock_guard<std::mutex> lock(context->mutex);
  ffi::Array<KernelTuple> result;
  for (const wgpu::KernelTime& time : context->commands.StopProfile()) {
    result.push_back(KernelTuple(ffi::String(time.kernel), time.calls, time.microseconds));
  }
  return result;
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("cupola.webgpu.load", Load)
      .def("cupola.webgpu.register", Register)
      .def("cupola.webgpu.allocated_bytes",
           [](int64_t device) {
             wgpu::Context* context = wgpu::ContextOf(static_cast<int>(device));
             const std::lock_guard<std::mutex> lock(context->mutex);
             return static_cast<int64_t>(context->memory.allocated_bytes());
           })
      .def("cupola.webgpu.start_profile", StartProfile)
      .def("cupola.webgpu.stop_profile", StopProfile)
      .def("cupola.webgpu.lose",
           [](int64_t device) { wgpu::ContextOf(static_cast<int>(device))->gpu.Lose(); });
}

}  // namespace cupola
