#include "device/webgpu/kernel.h"

#include <utility>

namespace cupola::wgpu {

namespace ffi = tvm::ffi;

namespace {

constexpr uint32_t kMostBlocks = 65535;  // in one direction
constexpr size_t kMostGroups = 1024;     // kept of a kernel

// The grid that covers `blocks` in x, by going on in z.
Grid Spread(uint64_t blocks, uint64_t y) {
  const uint64_t z = (blocks + kMostBlocks - 1) / kMostBlocks;
  const uint64_t x = (blocks + z - 1) / z;
  return {static_cast<uint32_t>(x), static_cast<uint32_t>(y), static_cast<uint32_t>(z)};
}

}  // namespace

Kernel::Kernel(KernelInfo from) : DeviceKernel(std::move(from)) {
  for (const size_t i : signature().scalars) {
    const DLDataType type = info().arguments[i];
    if (type.bits == 32 && type.lanes == 1) continue;
    Raise("the kernel " + info().name + " takes a scalar of " + std::to_string(type.bits) +
          " bits; WebGPU has those of 32 only");
  }
  if (uniform_bytes() > Commands::kMaxUniformBytes) {
    Raise("the kernel " + info().name + " takes " + std::to_string(signature().scalars.size()) +
          " scalars");
  }
  if (signature().writes.size() != signature().buffers.size()) {
    Raise("the kernel " + info().name + " does not say which of its arguments it writes to");
  }
}

Launch Kernel::Prepare(DeviceContext* on, int device, const ffi::PackedArgs& arguments,
                       const LaunchGrid& grid) {
  auto* context = static_cast<Context*>(on);
  if (grid.blocks[2] != 1 || grid.blocks[1] > kMostBlocks) {
    Raise("the kernel " + info().name + " has a grid that WebGPU does not allow");
  }
  Compiled* compiled = CompiledFor(context, device);
  // A block returns if its number is greater than the limit.
  const auto limit = static_cast<uint32_t>(grid.blocks[0] - 1);
  Dispatch dispatch{&info().name, compiled->pipeline, Bind(context, compiled, arguments),
                    Scalars(arguments, limit), Spread(grid.blocks[0], grid.blocks[1])};
  return [context, dispatch = std::move(dispatch)] {
    context->commands.Add(dispatch);
    context->gpu.Check("calling a kernel");
  };
}

Kernel::Compiled* Kernel::CompiledFor(Context* context, int device) {
  const auto found = compiled_.find(device);
  if (found != compiled_.end()) return &found->second;
  context->gpu.Check("compiling a kernel");
  Compiled compiled;
  MakeLayout(&context->gpu, &compiled);
  MakePipeline(&context->gpu, &compiled);
  return &compiled_.emplace(device, std::move(compiled)).first->second;
}

void Kernel::MakeLayout(Gpu* gpu, Compiled* compiled) const {
  std::vector<BindGroupLayoutEntry> entries(signature().buffers.size() + 1);
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i] = {};
    entries[i].binding = static_cast<uint32_t>(i);
    entries[i].visibility = kStageCompute;
  }
  for (size_t i = 0; i < signature().buffers.size(); ++i) {
    entries[i].buffer.type =
        signature().writes[i] ? BufferBindingType::kStorage : BufferBindingType::kReadOnlyStorage;
  }
  entries.back().buffer.type = BufferBindingType::kUniform;
  entries.back().buffer.has_dynamic_offset = 1;
  entries.back().buffer.min_binding_size = uniform_bytes();
  BindGroupLayoutDescriptor descriptor{};
  descriptor.num_entries = entries.size();
  descriptor.entries = entries.data();
  compiled->layout = gpu->api().DeviceCreateBindGroupLayout(gpu->device(), &descriptor);
  gpu->Check(("compiling the kernel " + info().name).c_str());
}

void Kernel::MakePipeline(Gpu* gpu, Compiled* compiled) const {
  const Api& api = gpu->api();
  PipelineLayoutDescriptor layout_descriptor{};
  layout_descriptor.num_bind_group_layouts = 1;
  layout_descriptor.bind_group_layouts = &compiled->layout;
  const PipelineLayout layout = api.DeviceCreatePipelineLayout(gpu->device(), &layout_descriptor);
  ShaderSourceWgsl source{};
  source.chain.type = SType::kShaderSourceWgsl;
  source.code = View(info().source);
  ShaderModuleDescriptor module_descriptor{};
  module_descriptor.next = &source.chain;
  module_descriptor.label = View(info().name);
  const ShaderModule module = api.DeviceCreateShaderModule(gpu->device(), &module_descriptor);
  ComputePipelineDescriptor descriptor{};
  descriptor.label = View(info().name);
  descriptor.layout = layout;
  descriptor.compute.module = module;
  descriptor.compute.entry_point = View(info().name);
  const ComputePipeline pipeline = api.DeviceCreateComputePipeline(gpu->device(), &descriptor);
  api.ShaderModuleRelease(module);
  api.PipelineLayoutRelease(layout);
  gpu->Check(("compiling the kernel " + info().name).c_str());
  compiled->pipeline = pipeline;
}

SharedGroup Kernel::Bind(Context* context, Compiled* compiled,
                         const ffi::PackedArgs& arguments) const {
  std::vector<Place> places;
  std::string key;
  for (const size_t i : signature().buffers) {
    const Place place = context->memory.At(arguments[static_cast<int>(i)].cast<void*>());
    const uint64_t identity[2] = {place.serial, place.offset};
    key.append(reinterpret_cast<const char*>(identity), sizeof(identity));
    places.push_back(place);
  }
  const auto found = compiled->groups.find(key);
  if (found != compiled->groups.end()) return found->second;
  if (compiled->groups.size() >= kMostGroups) {
    context->commands.Submit();
    compiled->groups.clear();
  }
  SharedGroup group = MakeGroup(context, *compiled, places);
  compiled->groups.emplace(std::move(key), group);
  return group;
}

SharedGroup Kernel::MakeGroup(Context* context, const Compiled& compiled,
                              const std::vector<Place>& places) const {
  Gpu* gpu = &context->gpu;
  std::vector<BindGroupEntry> entries(places.size() + 1);
  for (size_t i = 0; i < places.size(); ++i) {
    entries[i] = {};
    entries[i].binding = static_cast<uint32_t>(i);
    entries[i].buffer = places[i].buffer;
    entries[i].offset = places[i].offset;
    entries[i].size = places[i].bytes;
  }
  BindGroupEntry& uniform = entries.back();
  uniform = {};
  uniform.binding = static_cast<uint32_t>(places.size());
  uniform.buffer = context->commands.uniforms();
  uniform.size = uniform_bytes();
  BindGroupDescriptor descriptor{};
  descriptor.layout = compiled.layout;
  descriptor.num_entries = entries.size();
  descriptor.entries = entries.data();
  SharedGroup group(gpu->api().DeviceCreateBindGroup(gpu->device(), &descriptor),
                    [gpu](BindGroup made) {
                      if (made != nullptr) gpu->api().BindGroupRelease(made);
                    });
  gpu->Check(("calling the kernel " + info().name).c_str());
  return group;
}

std::vector<uint32_t> Kernel::Scalars(const ffi::PackedArgs& arguments, uint32_t grid_limit) const {
  std::vector<uint32_t> values;
  for (const size_t i : signature().scalars) {
    const uint64_t bits = ScalarBits(info().arguments[i], arguments[static_cast<int>(i)]);
    values.push_back(static_cast<uint32_t>(bits));
  }
  values.push_back(grid_limit);
  return values;
}

}  // namespace cupola::wgpu
