// WebGPU as Python sees it: cupola.webgpu.*
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/reflection/registry.h>

#include "device/webgpu/context.h"
#include "device/webgpu/module.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

using Properties = ffi::Map<ffi::String, ffi::Any>;

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

void Lose(int64_t device) {
  DeviceContext* context = wgpu::Plugin()->ContextOf(static_cast<int>(device));
  static_cast<wgpu::Context*>(context)->gpu.Lose();
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("cupola.webgpu.load", Load)
      .def("cupola.webgpu.register", [] { RegisterPlugin(wgpu::Plugin(), wgpu::LoadModule); })
      .def("cupola.webgpu.lose", Lose);
}

}  // namespace cupola
