// A kernel in OpenCL C, as TVM writes it: its program and how it is called.
//
// TVM's convention: buffers and scalars are arguments in the order of the function's.
#ifndef CUPOLA_DEVICE_OPENCL_KERNEL_H_
#define CUPOLA_DEVICE_OPENCL_KERNEL_H_

#include <map>

#include "device/kernel_module.h"
#include "device/opencl/context.h"

namespace cupola::opencl {

class Kernel final : public DeviceKernel {
 public:
  // Throws ffi::Error if the kernel asks for something that has no meaning here.
  explicit Kernel(KernelInfo info);

 protected:
  Launch Prepare(DeviceContext* context, int device, const tvm::ffi::PackedArgs& arguments,
                 const LaunchGrid& grid) final;

 private:
  KernelHandle HandleFor(const Gpu& gpu, int device);

  std::map<int, KernelHandle> handles_;  // by device; as long as the process, as their programs
};

}  // namespace cupola::opencl

#endif  // CUPOLA_DEVICE_OPENCL_KERNEL_H_
