// The kernels of a library that TVM compiled for OpenCL, as TVM's runtime sees them.
#ifndef CUPOLA_DEVICE_OPENCL_MODULE_H_
#define CUPOLA_DEVICE_OPENCL_MODULE_H_

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/string.h>

namespace cupola::opencl {

// Reads what TVM's code generator serialized. Throws ffi::Error if it is something else.
tvm::ffi::Module LoadModule(const tvm::ffi::Bytes& bytes);

}  // namespace cupola::opencl

#endif  // CUPOLA_DEVICE_OPENCL_MODULE_H_
