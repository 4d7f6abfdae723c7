// Tensors in the memory of a device other than the CPU, and copies to, from and within it.
//
// It works on every device that TVM's runtime has an interface for. It knows no models.
#ifndef CUPOLA_DEVICE_DEVICE_MEMORY_H_
#define CUPOLA_DEVICE_DEVICE_MEMORY_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>

#include <cstdint>
#include <optional>

#include "device/device_api.h"

namespace cupola {

class DeviceMemory {
 public:
  // Throws std::runtime_error where the runtime cannot use such devices.
  explicit DeviceMemory(DLDevice device) : device_(device), api_(DeviceApiOf(device)) {}
  // Nothing for the CPU, whose memory needs nobody.
  static std::optional<DeviceMemory> Of(DLDevice device);

  // Makes the calling thread's kernels run on the device.
  void Enter() const { api_->SetDevice(device_); }

  // Contents are undefined.
  tvm::ffi::Tensor Empty(const tvm::ffi::Shape& shape, DLDataType type) const;
  // A vector of `size` elements that begins `byte_offset` into `storage`, see has_addresses.
  tvm::ffi::Tensor Part(const tvm::ffi::Tensor& storage, int64_t byte_offset, int64_t size) const;
  // Whether a tensor may begin within another one's memory.
  bool has_addresses() const { return api_->SupportsDevicePointerArithmeticsOnHost(); }

  // All of `to`, from host memory, which has to stay as it is until somebody has waited: CUDA may
  // read it later.
  void Upload(const void* from, const tvm::ffi::Tensor& to) const;
  // Until everything that was asked of the device is done.
  void Wait() const;
  // How often somebody has waited, downloads included.
  int64_t num_waits() const { return num_waits_; }
  // Tensors of the device with the values of these.
  tvm::ffi::Array<tvm::ffi::Tensor> Copies(const tvm::ffi::Array<tvm::ffi::Tensor>& tensors) const;
  // All of `from`; waits for the kernels that write it.
  void Download(const tvm::ffi::Tensor& from, void* to) const;
  // Bytes within a tensor, in order with the kernels.
  void Copy(const tvm::ffi::Tensor& tensor, int64_t from, int64_t to, int64_t bytes) const;

 private:
  void CopyBytes(DLTensor from, DLTensor to, int64_t bytes) const;

  DLDevice device_;
  DeviceApi* api_;
  mutable int64_t num_waits_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_DEVICE_DEVICE_MEMORY_H_
