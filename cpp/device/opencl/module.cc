#include "device/opencl/module.h"

#include <memory>
#include <string>
#include <utility>

#include "device/device_error.h"
#include "device/kernel_module.h"
#include "device/opencl/context.h"
#include "device/opencl/kernel.h"

namespace cupola::opencl {

namespace ffi = tvm::ffi;

namespace {

constexpr char kFormat[] = "cl";             // OpenCL C; other drivers take other texts
constexpr char kMarker[] = "// Function: ";  // and the name, before each kernel

// Gives each kernel its own source: what comes before all of them, and what follows its name. So a
// driver compiles those that are called, when they are.
void ShareOut(const std::string& text, KernelInfos* kernels) {
  const size_t first = text.find(kMarker);
  const std::string prelude = text.substr(0, first);
  for (size_t begin = first; begin != std::string::npos;) {
    const size_t name = begin + sizeof(kMarker) - 1;
    const size_t next = text.find(kMarker, name);
    const auto kernel = kernels->find(text.substr(name, text.find('\n', name) - name));
    if (kernel == kernels->end()) Raise("the library has an OpenCL kernel without arguments");
    kernel->second.source = prelude + text.substr(begin, next - begin);
    begin = next;
  }
}

}  // namespace

ffi::Module LoadModule(const ffi::Bytes& bytes) {
  KernelReader reader(bytes);
  const std::string format = reader.Text();
  if (format != kFormat) Raise("the library has OpenCL kernels of the format " + format);
  KernelInfos kernels = reader.Infos();
  ShareOut(reader.Text(), &kernels);
  return MakeKernelModule(Plugin(), std::move(kernels),
                          [](const KernelInfo& info) { return std::make_shared<Kernel>(info); });
}

}  // namespace cupola::opencl
