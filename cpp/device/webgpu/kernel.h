// A kernel in WGSL, as TVM writes it: its pipeline and how it is called.
//
// TVM's convention: storage buffers are bindings 0 to n - 1 of group 0, in the order of the
// arguments; the uniform of binding n holds the scalars, four bytes each, and then a limit for the
// grid. A grid of more than 65535 blocks in x goes on in z, and blocks beyond the limit return.
#ifndef CUPOLA_DEVICE_WEBGPU_KERNEL_H_
#define CUPOLA_DEVICE_WEBGPU_KERNEL_H_

#include <tvm/ffi/function.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "device/webgpu/context.h"

namespace cupola::wgpu {

struct KernelInfo {
  std::string name;
  std::vector<DLDataType> arguments;
  std::vector<std::string> launch_tags;  // what the arguments behind those above mean
  std::string source;                    // WGSL
};

class Kernel {
 public:
  // Throws ffi::Error if the kernel asks for something that has no meaning here.
  explicit Kernel(KernelInfo info);

  // Calls it on the thread's current device. The arguments are those of the kernel, then the
  // grid. Throws ffi::Error.
  void Launch(tvm::ffi::PackedArgs arguments);

 private:
  // What a device keeps of it.
  struct Compiled {
    BindGroupLayout layout = nullptr;
    ComputePipeline pipeline = nullptr;
    // By what is bound: serials and offsets. The groups of a model repeat in every step.
    std::unordered_map<std::string, BindGroup> groups;
  };

  void ReadTags();
  Compiled* CompiledFor(Context* context, int device);
  void MakeLayout(Gpu* gpu, Compiled* compiled) const;
  void MakePipeline(Gpu* gpu, Compiled* compiled) const;
  BindGroup Bind(Context* context, Compiled* compiled, const tvm::ffi::PackedArgs& arguments) const;
  BindGroup MakeGroup(Context* context, const Compiled& compiled,
                      const std::vector<Place>& places) const;
  std::vector<uint32_t> Scalars(const tvm::ffi::PackedArgs& arguments, uint32_t grid_limit) const;
  size_t uniform_bytes() const { return (scalars_.size() + 1) * sizeof(uint32_t); }

  const KernelInfo info_;
  std::vector<size_t> buffers_;  // which arguments are
  std::vector<size_t> scalars_;
  std::vector<bool> writes_;    // of each buffer: whether the kernel writes to it
  std::vector<int> grid_axes_;  // of each argument of the grid: x, y, z; -1 for a block's own size
  std::unordered_map<int, Compiled> compiled_;  // by device
};

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_KERNEL_H_
