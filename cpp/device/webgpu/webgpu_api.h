// WebGPU as a device of TVM's runtime.
#ifndef CUPOLA_DEVICE_WEBGPU_WEBGPU_API_H_
#define CUPOLA_DEVICE_WEBGPU_WEBGPU_API_H_

#include "device/device_api.h"

namespace cupola::wgpu {

// The one that TVM's runtime is given; it lives as long as the process.
DeviceApi* WebGpuApi();

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_WEBGPU_API_H_
