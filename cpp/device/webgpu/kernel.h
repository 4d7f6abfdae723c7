// A kernel in WGSL, as TVM writes it: its pipeline and how it is called.
//
// TVM's convention: storage buffers are bindings 0 to n - 1 of group 0, in the order of the
// arguments; the uniform of binding n holds the scalars, four bytes each, and then a limit for the
// grid. A grid of more than 65535 blocks in x goes on in z, and blocks beyond the limit return.
#ifndef CUPOLA_DEVICE_WEBGPU_KERNEL_H_
#define CUPOLA_DEVICE_WEBGPU_KERNEL_H_

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "device/kernel_module.h"
#include "device/webgpu/context.h"

namespace cupola::wgpu {

class Kernel final : public DeviceKernel {
 public:
  // Throws ffi::Error if the kernel asks for something that has no meaning here.
  explicit Kernel(KernelInfo info);

 protected:
  Launch Prepare(DeviceContext* context, int device, const tvm::ffi::PackedArgs& arguments,
                 const LaunchGrid& grid) final;

 private:
  // What a device keeps of it.
  struct Compiled {
    BindGroupLayout layout = nullptr;
    ComputePipeline pipeline = nullptr;
    // By what is bound: serials and offsets. The groups of a model repeat in every step.
    std::unordered_map<std::string, SharedGroup> groups;
  };

  Compiled* CompiledFor(Context* context, int device);
  void MakeLayout(Gpu* gpu, Compiled* compiled) const;
  void MakePipeline(Gpu* gpu, Compiled* compiled) const;
  SharedGroup Bind(Context* context, Compiled* compiled,
                   const tvm::ffi::PackedArgs& arguments) const;
  SharedGroup MakeGroup(Context* context, const Compiled& compiled,
                        const std::vector<Place>& places) const;
  std::vector<uint32_t> Scalars(const tvm::ffi::PackedArgs& arguments, uint32_t grid_limit) const;
  size_t uniform_bytes() const { return (signature().scalars.size() + 1) * sizeof(uint32_t); }

  std::unordered_map<int, Compiled> compiled_;  // by device
};

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_KERNEL_H_
