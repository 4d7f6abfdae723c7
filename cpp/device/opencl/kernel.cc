#include "device/opencl/kernel.h"

#include <string>
#include <utility>

#include "device/opencl/program.h"

namespace cupola::opencl {

namespace ffi = tvm::ffi;

namespace {

uint32_t BytesOf(DLDataType type) { return (uint32_t{type.bits} * type.lanes + 7) / 8; }

}  // namespace

Kernel::Kernel(KernelInfo from) : DeviceKernel(std::move(from)) {
  for (const size_t i : signature().scalars) {
    const DLDataType type = info().arguments[i];
    const bool is_number =
        type.code == kDLInt || type.code == kDLUInt || (type.code == kDLFloat && type.bits >= 32);
    if (is_number && type.lanes == 1) continue;
    Raise("the kernel " + info().name + " takes a scalar that OpenCL does not have");
  }
}

Launch Kernel::Prepare(DeviceContext* on, int device, const ffi::PackedArgs& arguments,
                       const LaunchGrid& grid) {
  auto* context = static_cast<Context*>(on);
  Dispatch dispatch{};
  dispatch.name = &info().name;
  dispatch.kernel = HandleFor(context->gpu, device);
  for (const size_t i : signature().buffers) {
    const void* address = arguments[static_cast<int>(i)].cast<void*>();
    dispatch.buffers.emplace_back(static_cast<uint32_t>(i), context->memory.Argument(address));
  }
  for (const size_t i : signature().scalars) {
    const DLDataType type = info().arguments[i];
    dispatch.scalars.push_back({static_cast<uint32_t>(i), BytesOf(type),
                                ScalarBits(type, arguments[static_cast<int>(i)])});
  }
  for (int axis = 0; axis < 3; ++axis) {
    dispatch.block[axis] = grid.threads[axis];
    dispatch.threads[axis] = grid.threads[axis] * grid.blocks[axis];
  }
  return [context, dispatch = std::move(dispatch)] { context->commands.Add(dispatch); };
}

KernelHandle Kernel::HandleFor(const Gpu& gpu, int device) {
  const auto found = handles_.find(device);
  if (found != handles_.end()) return found->second;
  const KernelHandle handle = BuildKernel(gpu, info().name, info().source);
  return handles_.emplace(device, handle).first->second;
}

}  // namespace cupola::opencl
