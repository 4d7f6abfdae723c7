// OpenCL as Python sees it: cupola.opencl.*
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/reflection/registry.h>

#include "device/opencl/context.h"
#include "device/opencl/module.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

using Properties = ffi::Map<ffi::String, ffi::Any>;

// What the devices are, in the order of their numbers.
ffi::Array<Properties> Load(const ffi::String& path, const ffi::String& preferred) {
  const opencl::Devices& devices = opencl::LoadDevices(path, preferred);
  ffi::Array<Properties> result;
  for (size_t i = 0; i < devices.size(); ++i) {
    const opencl::DeviceDescription& device = devices.description(i);
    Properties properties;
    properties.Set("name", ffi::String(device.name));
    properties.Set("platform", ffi::String(device.platform));
    properties.Set("version", ffi::String(device.version));
    properties.Set("driver", ffi::String(device.driver));
    properties.Set("type", ffi::String(opencl::DeviceTypeName(device.type)));
    properties.Set("max_tensor_bytes", static_cast<int64_t>(device.max_tensor_bytes));
    properties.Set("memory_bytes", static_cast<int64_t>(device.memory_bytes));
    properties.Set("max_threads", static_cast<int64_t>(device.max_threads));
    properties.Set("shared_bytes", static_cast<int64_t>(device.local_bytes));
    properties.Set("alignment", static_cast<int64_t>(device.alignment));
    properties.Set("f16", device.has_f16);
    result.push_back(properties);
  }
  return result;
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef().def("cupola.opencl.load", Load).def("cupola.opencl.register", [] {
    RegisterPlugin(opencl::Plugin(), opencl::LoadModule);
  });
}

}  // namespace cupola
