// A device in use: what its drivers know it by. It owns no memory and no commands.
#ifndef CUPOLA_DEVICE_OPENCL_GPU_H_
#define CUPOLA_DEVICE_OPENCL_GPU_H_

#include "device/opencl/devices.h"

namespace cupola::opencl {

class Gpu {
 public:
  // Throws ffi::Error if the device cannot be used.
  Gpu(const Devices& devices, size_t index)
      : api_(devices.api()),
        description_(devices.description(index)),
        device_(devices.device(index)) {
    Status status = kSuccess;
    context_ = api_.CreateContext(nullptr, 1, &device_, nullptr, nullptr, &status);
    Check(status, "opening " + description_.name);
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const Api& api() const { return api_; }
  const DeviceDescription& description() const { return description_; }
  Device device() const { return device_; }
  ContextHandle context() const { return context_; }

 private:
  const Api& api_;
  const DeviceDescription& description_;
  const Device device_;
  ContextHandle context_ = nullptr;  // as long as the process
};

}  // namespace cupola::opencl

#endif  // CUPOLA_DEVICE_OPENCL_GPU_H_
