// Kernels as TVM's runtime calls them: a module of functions, whose arguments are those of the
// kernel and then the grid.
#ifndef CUPOLA_DEVICE_KERNEL_MODULE_H_
#define CUPOLA_DEVICE_KERNEL_MODULE_H_

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "device/device_plugin.h"
#include "device/kernel_library.h"
#include "device/launch_recorder.h"

namespace cupola {

struct LaunchGrid {
  uint64_t blocks[3] = {1, 1, 1};
  uint64_t threads[3] = {1, 1, 1};  // of a block, where the caller says so
};

// Which arguments of a kernel are what.
struct KernelSignature {
  // Throws ffi::Error if the kernel asks for something that has no meaning on devices of ours.
  explicit KernelSignature(const KernelInfo& info);
  LaunchGrid GridOf(const tvm::ffi::PackedArgs& arguments) const;

  size_t num_arguments;
  std::vector<size_t> buffers;
  std::vector<size_t> scalars;
  std::vector<bool> writes;  // of each buffer: whether the kernel writes to it; empty: not known
  struct Size {
    bool threads;
    int axis;
  };
  std::vector<Size> sizes;  // what the arguments of the grid mean
};

// The bits of a scalar argument, in as many of the lower bytes as its type has.
uint64_t ScalarBits(DLDataType type, const tvm::ffi::AnyView& value);

// A kernel on the devices of one kind.
class DeviceKernel {
 public:
  explicit DeviceKernel(KernelInfo info) : info_(std::move(info)), signature_(info_) {}
  virtual ~DeviceKernel() = default;

  // Calls it on the current device of the thread. Throws ffi::Error.
  void Call(DevicePlugin* plugin, const tvm::ffi::PackedArgs& arguments);

 protected:
  // With the mutex of the context held, which is that of the device with this number.
  virtual Launch Prepare(DeviceContext* context, int device, const tvm::ffi::PackedArgs& arguments,
                         const LaunchGrid& grid) = 0;
  const KernelInfo& info() const { return info_; }
  const KernelSignature& signature() const { return signature_; }

 private:
  const KernelInfo info_;
  const KernelSignature signature_;
};

using KernelMaker = std::function<std::shared_ptr<DeviceKernel>(const KernelInfo&)>;

tvm::ffi::Module MakeKernelModule(DevicePlugin* plugin, KernelInfos infos, KernelMaker make);

}  // namespace cupola

#endif  // CUPOLA_DEVICE_KERNEL_MODULE_H_
