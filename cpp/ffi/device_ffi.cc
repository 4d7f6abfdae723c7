// Devices of TVM's runtime as Python sees them: cupola.device.*
#include <tvm/ffi/any.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tuple.h>
#include <tvm/ffi/device.h>
#include <tvm/ffi/reflection/registry.h>

#include <mutex>

#include "device/device_api.h"
#include "device/device_plugin.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

using KernelTuple = ffi::Tuple<ffi::String, int64_t, double>;  // name, calls, microseconds

// Bytes that are free on a device; None: its driver does not say.
ffi::Any AvailableMemory(DLDevice device) {
  ffi::Any bytes;
  DeviceApiOf(device)->GetAttr(device, DeviceAttr::kAvailableGlobalMemory, &bytes);
  return bytes;
}

// What `use` makes of a device of our own, with its mutex held.
template <typename Use>
auto WithContext(DLDevice device, const Use& use) {
  DeviceContext* context = PluginOf(device.device_type)->ContextOf(device.device_id);
  const std::lock_guard<std::mutex> lock(context->mutex);
  return use(context);
}

int64_t AllocatedBytes(DLDevice device) {
  return WithContext(device, [](const DeviceContext* context) {
    return static_cast<int64_t>(context->allocated_bytes());
  });
}

void StartProfile(DLDevice device) {
  WithContext(device, [](DeviceContext* context) { context->StartProfile(); });
}

ffi::Array<KernelTuple> StopProfile(DLDevice device) {
  return WithContext(device, [](DeviceContext* context) {
    ffi::Array<KernelTuple> result;
    for (const KernelTime& time : context->StopProfile()) {
      result.push_back(KernelTuple(ffi::String(time.kernel), time.calls, time.microseconds));
    }
    return result;
  });
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("cupola.device.available_memory", AvailableMemory)
      .def("cupola.device.allocated_bytes", AllocatedBytes)
      .def("cupola.device.start_profile", StartProfile)
      .def("cupola.device.stop_profile", StopProfile);
}

}  // namespace cupola
