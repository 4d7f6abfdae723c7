// Devices of TVM's runtime as Python sees them: cupola.device.*
#include <tvm/ffi/any.h>
#include <tvm/ffi/device.h>
#include <tvm/ffi/reflection/registry.h>

#include "device/device_api.h"

namespace cupola {

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  // Bytes that are free on a device; None: its driver does not say.
  refl::GlobalDef().def("cupola.device.available_memory", [](DLDevice device) {
    tvm::ffi::Any bytes;
    DeviceApiOf(device)->GetAttr(device, DeviceAttr::kAvailableGlobalMemory, &bytes);
    return bytes;
  });
}

}  // namespace cupola
