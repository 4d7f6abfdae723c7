#include "device/webgpu/kernel.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "device/webgpu/recorder.h"

namespace cupola::wgpu {

namespace ffi = tvm::ffi;

namespace {

constexpr uint32_t kMostBlocks = 65535;  // in one direction
constexpr size_t kMostGroups = 1024;     // kept of a kernel
constexpr char kWriteTag[] = "paramWriteAccess:";

bool StartsWith(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

// "[0,1,...]": which buffers are written.
std::vector<bool> ReadFlags(const std::string& list) {
  std::vector<bool> flags;
  for (const char c : list) {
    if (c == '0' || c == '1') flags.push_back(c == '1');
  }
  return flags;
}

uint32_t ScalarBits(DLDataType type, const ffi::AnyView& value) {
  if (type.code == kDLFloat) {
    const auto number = static_cast<float>(value.cast<double>());
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof(bits));
    return bits;
  }
  return static_cast<uint32_t>(value.cast<int64_t>());
}

// The grid that covers `blocks` in x, by going on in z.
Grid Spread(uint64_t blocks, uint64_t y) {
  const uint64_t z = (blocks + kMostBlocks - 1) / kMostBlocks;
  const uint64_t x = (blocks + z - 1) / z;
  return {static_cast<uint32_t>(x), static_cast<uint32_t>(y), static_cast<uint32_t>(z)};
}

}  // namespace

Kernel::Kernel(KernelInfo info) : info_(std::move(info)) {
  for (size_t i = 0; i < info_.arguments.size(); ++i) {
    const DLDataType type = info_.arguments[i];
    if (type.code == kDLOpaqueHandle) {
      buffers_.push_back(i);
    } else if (type.bits == 32 && type.lanes == 1) {
      scalars_.push_back(i);
    } else {
      Raise("the kernel " + info_.name + " takes a scalar of " + std::to_string(type.bits) +
            " bits; WebGPU has those of 32 only");
    }
  }
  if (uniform_bytes() > Commands::kMaxUniformBytes) {
    Raise("the kernel " + info_.name + " takes " + std::to_string(scalars_.size()) + " scalars");
  }
  ReadTags();
}

void Kernel::ReadTags() {
  for (const std::string& tag : info_.launch_tags) {
    if (StartsWith(tag, "blockIdx.")) {
      grid_axes_.push_back(tag.back() - 'x');
    } else if (StartsWith(tag, "threadIdx.")) {
      grid_axes_.push_back(-1);
    } else if (StartsWith(tag, kWriteTag)) {
      writes_ = ReadFlags(tag.substr(sizeof(kWriteTag) - 1));
    } else {
      Raise("the kernel " + info_.name + " needs " + tag + ", which WebGPU does not have");
    }
  }
  if (writes_.size() != buffers_.size()) {
    Raise("the kernel " + info_.name + " does not say which of its arguments it writes to");
  }
}

void Kernel::Launch(ffi::PackedArgs arguments) {
  const size_t num_arguments = info_.arguments.size();
  if (static_cast<size_t>(arguments.size()) != num_arguments + grid_axes_.size()) {
    Raise("the kernel " + info_.name + " was called with a wrong number of arguments");
  }
  uint64_t blocks[3] = {1, 1, 1};
  for (size_t i = 0; i < grid_axes_.size(); ++i) {
    const auto size = arguments[static_cast<int>(num_arguments + i)].cast<int64_t>();
    if (grid_axes_[i] >= 0)
      blocks[grid_axes_[i]] = static_cast<uint64_t>(std::max<int64_t>(size, 0));
  }
  if (blocks[0] == 0 || blocks[1] == 0) return;
  if (blocks[2] != 1 || blocks[1] > kMostBlocks) {
    Raise("the kernel " + info_.name + " has a grid that WebGPU does not allow");
  }
  const int device = CurrentDevice();
  Context* context = ContextOf(device);
  const std::lock_guard<std::mutex> lock(context->mutex);
  try {
    Compiled* compiled = CompiledFor(context, device);
    const BindGroup group = Bind(context, compiled, arguments);
    // A block returns if its number is greater than the limit.
    const auto limit = static_cast<uint32_t>(blocks[0] - 1);
    const Dispatch dispatch{&info_.name, compiled->pipeline, group, Scalars(arguments, limit),
                            Spread(blocks[0], blocks[1])};
    if (IsRecording()) {
      Remember(context, dispatch);
    } else {
      context->commands.Add(dispatch);
    }
    context->gpu.Check("calling a kernel");
  } catch (...) {
    if (!IsRecording()) context->commands.Abandon();
    throw;
  }
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
  std::vector<BindGroupLayoutEntry> entries(buffers_.size() + 1);
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i] = {};
    entries[i].binding = static_cast<uint32_t>(i);
    entries[i].visibility = kStageCompute;
  }
  for (size_t i = 0; i < buffers_.size(); ++i) {
    entries[i].buffer.type =
        writes_[i] ? BufferBindingType::kStorage : BufferBindingType::kReadOnlyStorage;
  }
  entries.back().buffer.type = BufferBindingType::kUniform;
  entries.back().buffer.has_dynamic_offset = 1;
  entries.back().buffer.min_binding_size = uniform_bytes();
  BindGroupLayoutDescriptor descriptor{};
  descriptor.num_entries = entries.size();
  descriptor.entries = entries.data();
  compiled->layout = gpu->api().DeviceCreateBindGroupLayout(gpu->device(), &descriptor);
  gpu->Check(("compiling the kernel " + info_.name).c_str());
}

void Kernel::MakePipeline(Gpu* gpu, Compiled* compiled) const {
  const Api& api = gpu->api();
  PipelineLayoutDescriptor layout_descriptor{};
  layout_descriptor.num_bind_group_layouts = 1;
  layout_descriptor.bind_group_layouts = &compiled->layout;
  const PipelineLayout layout = api.DeviceCreatePipelineLayout(gpu->device(), &layout_descriptor);
  ShaderSourceWgsl source{};
  source.chain.type = SType::kShaderSourceWgsl;
  source.code = View(info_.source);
  ShaderModuleDescriptor module_descriptor{};
  module_descriptor.next = &source.chain;
  module_descriptor.label = View(info_.name);
  const ShaderModule module = api.DeviceCreateShaderModule(gpu->device(), &module_descriptor);
  ComputePipelineDescriptor descriptor{};
  descriptor.label = View(info_.name);
  descriptor.layout = layout;
  descriptor.compute.module = module;
  descriptor.compute.entry_point = View(info_.name);
  const ComputePipeline pipeline = api.DeviceCreateComputePipeline(gpu->device(), &descriptor);
  api.ShaderModuleRelease(module);
  api.PipelineLayoutRelease(layout);
  gpu->Check(("compiling the kernel " + info_.name).c_str());
  compiled->pipeline = pipeline;
}

BindGroup Kernel::Bind(Context* context, Compiled* compiled,
                       const ffi::PackedArgs& arguments) const {
  std::vector<Place> places;
  std::string key;
  for (const size_t i : buffers_) {
    const Place place = context->memory.At(arguments[static_cast<int>(i)].cast<void*>());
    const uint64_t identity[2] = {place.serial, place.offset};
    key.append(reinterpret_cast<const char*>(identity), sizeof(identity));
    places.push_back(place);
  }
  const auto found = compiled->groups.find(key);
  if (found != compiled->groups.end()) return found->second;
  if (compiled->groups.size() >= kMostGroups) {
    context->commands.Submit();
    for (const auto& [_, group] : compiled->groups) context->gpu.api().BindGroupRelease(group);
    compiled->groups.clear();
  }
  const BindGroup group = MakeGroup(context, *compiled, places);
  compiled->groups.emplace(std::move(key), group);
  return group;
}

BindGroup Kernel::MakeGroup(Context* context, const Compiled& compiled,
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
  const BindGroup group = gpu->api().DeviceCreateBindGroup(gpu->device(), &descriptor);
  gpu->Check(("calling the kernel " + info_.name).c_str());
  return group;
}

std::vector<uint32_t> Kernel::Scalars(const ffi::PackedArgs& arguments, uint32_t grid_limit) const {
  std::vector<uint32_t> values;
  for (const size_t i : scalars_) {
    values.push_back(ScalarBits(info_.arguments[i], arguments[static_cast<int>(i)]));
  }
  values.push_back(grid_limit);
  return values;
}

}  // namespace cupola::wgpu
