// OpenCL C made into what a device executes.
#ifndef CUPOLA_DEVICE_OPENCL_PROGRAM_H_
#define CUPOLA_DEVICE_OPENCL_PROGRAM_H_

#include <string>

#include "device/opencl/gpu.h"

namespace cupola::opencl {

// The kernel `name` of a program. Throws ffi::Error with what the driver's compiler has against it.
KernelHandle BuildKernel(const Gpu& gpu, const std::string& name, const std::string& source);

}  // namespace cupola::opencl

#endif  // CUPOLA_DEVICE_OPENCL_PROGRAM_H_
