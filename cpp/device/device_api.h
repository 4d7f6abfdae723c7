// TVM's interface to a device's memory and queue (its class tvm::runtime::DeviceAPI), as it is in
// the vtable: what we implement for WebGPU and OpenCL, and call for every device.
//
// It is declared here, and not taken from TVM's headers, so that building needs tvm_ffi alone. The
// order of the functions is TVM's; CheckDeviceAbi compares it with the loaded runtime library.
#ifndef CUPOLA_DEVICE_DEVICE_API_H_
#define CUPOLA_DEVICE_DEVICE_API_H_

#include <tvm/ffi/any.h>
#include <tvm/ffi/optional.h>
#include <tvm/ffi/string.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace cupola {

// What GetAttr may be asked, with TVM's numbers.
enum class DeviceAttr : int {
  kExist = 0,
  kMaxThreadsPerBlock = 1,
  kWarpSize = 2,
  kMaxSharedMemoryPerBlock = 3,
  kComputeVersion = 4,
  kDeviceName = 5,
  kMaxClockRate = 6,
  kMultiProcessorCount = 7,
  kMaxThreadDimensions = 8,
  kMaxRegistersPerBlock = 9,
  kGcnArch = 10,
  kApiVersion = 11,
  kDriverVersion = 12,
  kL2CacheSizeBytes = 13,
  kTotalGlobalMemory = 14,
  kAvailableGlobalMemory = 15,
  kImagePitchAlignment = 16,
};

using MemoryScope = tvm::ffi::Optional<tvm::ffi::String>;

// Pointers to device memory are the device's own: only its functions and kernels understand them.
class DeviceApi {
 public:
  virtual ~DeviceApi() = default;
  virtual void SetDevice(DLDevice device) = 0;
  virtual void GetAttr(DLDevice device, DeviceAttr attr, tvm::ffi::Any* result) = 0;
  virtual size_t GetDataSize(const DLTensor& tensor, MemoryScope scope) = 0;
  virtual void GetTargetProperty(DLDevice device, const std::string& property,
                                 tvm::ffi::Any* result) = 0;
  virtual void* AllocDataSpace(DLDevice device, size_t bytes, size_t alignment,
                               DLDataType type) = 0;
  virtual void* AllocDataSpace(DLDevice device, int ndim, const int64_t* shape, DLDataType type,
                               MemoryScope scope) = 0;
  virtual void FreeDataSpace(DLDevice device, void* data) = 0;
  // One of the tensors may be on the host. It may return before the copy is done, see StreamSync.
  virtual void CopyDataFromTo(DLTensor* from, DLTensor* to, void* stream) = 0;
  virtual void* CreateStream(DLDevice device) = 0;
  virtual void FreeStream(DLDevice device, void* stream) = 0;
  virtual void StreamSync(DLDevice device, void* stream) = 0;
  virtual void SetStream(DLDevice device, void* stream) = 0;
  virtual void* GetCurrentStream(DLDevice device) = 0;
  virtual void SyncStreamFromTo(DLDevice device, void* from, void* to) = 0;
  virtual void* AllocWorkspace(DLDevice device, size_t bytes, DLDataType type) = 0;
  virtual void FreeWorkspace(DLDevice device, void* data) = 0;
  virtual bool SupportsDevicePointerArithmeticsOnHost() = 0;

 protected:
  virtual void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset,
                              size_t bytes, DLDevice from_device, DLDevice to_device,
                              DLDataType type, void* stream) = 0;
};

// Throws std::runtime_error unless the loaded libtvm_runtime has the interface above.
void CheckDeviceAbi();

// The interface of `device`, by the name that TVM gives its kind ("cuda", "webgpu"). Throws
// std::runtime_error with one sentence where the runtime has none.
DeviceApi* DeviceApiOf(DLDevice device);

// TVM's name of a kind of device. Throws std::invalid_argument for one that TVM does not know.
const char* DeviceKindName(DLDeviceType type);

}  // namespace cupola

#endif  // CUPOLA_DEVICE_DEVICE_API_H_
