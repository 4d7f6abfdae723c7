#include "device/webgpu/module.h"

#include <memory>
#include <string>

#include "device/kernel_module.h"
#include "device/webgpu/context.h"
#include "device/webgpu/kernel.h"

namespace cupola::wgpu {

namespace ffi = tvm::ffi;

ffi::Module LoadModule(const ffi::Bytes& bytes) {
  KernelReader reader(bytes);
  KernelInfos kernels = reader.Infos();
  for (size_t n = reader.Count(); n > 0; --n) {
    const auto kernel = kernels.find(reader.Text());
    if (kernel == kernels.end()) Raise("the library has a WebGPU kernel without arguments");
    kernel->second.source = reader.Text();
  }
  return MakeKernelModule(Plugin(), std::move(kernels),
                          [](const KernelInfo& info) { return std::make_shared<Kernel>(info); });
}

}  // namespace cupola::wgpu
