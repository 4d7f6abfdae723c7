// The part of wgpu-native's C interface (webgpu.h and wgpu.h of the `wgpu` wheel, 0.32.0) that the
// WebGPU device uses, and its library, found at run time. A test compares the two byte by byte.
//
// Names are webgpu.h's without their prefix. A structure that is all zeros is a valid default,
// unless a member says otherwise.
#ifndef CUPOLA_DEVICE_WEBGPU_WGPU_NATIVE_H_
#define CUPOLA_DEVICE_WEBGPU_WGPU_NATIVE_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace cupola::wgpu {

// Handles, counted by the library: each Create or Get is one Release.
using Instance = struct InstanceImpl*;
using Adapter = struct AdapterImpl*;
using Device = struct DeviceImpl*;
using Queue = struct QueueImpl*;
using Buffer = struct BufferImpl*;
using BindGroup = struct BindGroupImpl*;
using BindGroupLayout = struct BindGroupLayoutImpl*;
using PipelineLayout = struct PipelineLayoutImpl*;
using ShaderModule = struct ShaderModuleImpl*;
using ComputePipeline = struct ComputePipelineImpl*;
using CommandEncoder = struct CommandEncoderImpl*;
using CommandBuffer = struct CommandBufferImpl*;
using ComputePassEncoder = struct ComputePassEncoderImpl*;
using QuerySet = struct QuerySetImpl*;

using Bool = uint32_t;
using Flags = uint64_t;

constexpr uint32_t kVersion = 0x1d0001;  // what GetVersion says but for its last byte

enum class SType : uint32_t { kShaderSourceWgsl = 2, kInstanceExtras = 0x00030004 };
enum class CallbackMode : uint32_t { kAllowSpontaneous = 3 };
enum class AdapterType : uint32_t { kDiscreteGpu = 1, kIntegratedGpu = 2, kCpu = 3, kUnknown = 4 };
enum class BackendType : uint32_t { kD3D12 = 4, kMetal = 5, kVulkan = 6 };
enum class BufferBindingType : uint32_t { kUniform = 2, kStorage = 3, kReadOnlyStorage = 4 };
enum class ErrorType : uint32_t { kValidation = 2, kOutOfMemory = 3, kInternal = 4 };
enum class FeatureName : uint32_t {
  kTimestampQuery = 9,
  kShaderF16 = 0xb,
  kSubgroups = 0x12,
  kNativeSubgroup = 0x00030021,
};
enum class MapAsyncStatus : uint32_t { kSuccess = 1 };
enum class RequestStatus : uint32_t { kSuccess = 1 };
enum class DeviceLostReason : uint32_t { kUnknown = 1 };
enum class QueryType : uint32_t { kTimestamp = 2 };

constexpr Flags kMapRead = 1;
constexpr Flags kUsageMapRead = 0x1, kUsageCopySrc = 0x4, kUsageCopyDst = 0x8, kUsageUniform = 0x40,
                kUsageStorage = 0x80, kUsageQueryResolve = 0x200;
constexpr Flags kStageCompute = 4;
constexpr Flags kBackendsPrimary = 0x2d;  // Vulkan, Metal, DirectX 12, a browser

struct StringView {
  const char* data;
  size_t length;
};
inline StringView View(const std::string& text) { return {text.data(), text.size()}; }
inline std::string Text(StringView view) {
  if (view.data == nullptr) return "";
  return view.length == SIZE_MAX ? std::string(view.data) : std::string(view.data, view.length);
}

struct ChainedStruct {
  ChainedStruct* next;
  SType type;
};
struct Future {
  uint64_t id;
};
struct InstanceExtras {
  ChainedStruct chain;
  Flags backends;
  Flags flags;
  uint32_t dx12_compiler;
  uint32_t gles_minor_version;
  uint32_t gl_fence_behaviour;
  StringView dxc_path;
  uint32_t dxc_shader_model;
  uint32_t dx12_presentation;
  const uint8_t*
      budget_for_creation;         // percent of memory in use at which allocations fail; or null
  const uint8_t* budget_for_loss;  // and at which the device is given up
  uint32_t display_type;
  void* display[2];
};
struct InstanceDescriptor {
  ChainedStruct* next;
  size_t num_required_features;
  const void* required_features;
  const void* required_limits;
};
struct EnumerateAdapterOptions {
  const ChainedStruct* next;
  Flags backends;
};
struct AdapterInfo {
  ChainedStruct* next;
  StringView vendor;
  StringView architecture;
  StringView device;
  StringView description;
  BackendType backend_type;
  AdapterType adapter_type;
  uint32_t vendor_id;
  uint32_t device_id;
  uint32_t subgroup_min_size;
  uint32_t subgroup_max_size;
};
struct Limits {
  ChainedStruct* next;
  uint32_t max_texture_dimensions[3];
  uint32_t max_texture_array_layers;
  uint32_t max_bind_groups;
  uint32_t max_bind_groups_plus_vertex_buffers;
  uint32_t max_bindings_per_bind_group;
  uint32_t max_dynamic_uniform_buffers;
  uint32_t max_dynamic_storage_buffers;
  uint32_t max_sampled_textures;
  uint32_t max_samplers;
  uint32_t max_storage_buffers;  // of a kernel
  uint32_t max_storage_textures;
  uint32_t max_uniform_buffers;
  uint64_t max_uniform_binding_bytes;
  uint64_t max_storage_binding_bytes;
  uint32_t min_uniform_offset_alignment;
  uint32_t min_storage_offset_alignment;
  uint32_t max_vertex_buffers;
  uint64_t max_buffer_bytes;
  uint32_t max_vertex_attributes;
  uint32_t max_vertex_stride;
  uint32_t max_inter_stage_variables;
  uint32_t max_color_attachments;
  uint32_t max_color_attachment_bytes;
  uint32_t max_workgroup_storage_bytes;
  uint32_t max_workgroup_invocations;
  uint32_t max_workgroup_size[3];
  uint32_t max_workgroups_per_dimension;
  uint32_t max_immediate_bytes;
};

using RequestDeviceCallback = void (*)(RequestStatus, Device, StringView message, void*, void*);
using BufferMapCallback = void (*)(MapAsyncStatus, StringView message, void*, void*);
using DeviceLostCallback = void (*)(const Device*, DeviceLostReason, StringView message, void*,
                                    void*);
using ErrorCallback = void (*)(const Device*, ErrorType, StringView message, void*, void*);

template <typename Callback>
struct CallbackInfo {
  ChainedStruct* next;
  CallbackMode mode;  // never zero
  Callback callback;
  void* user_data[2];
};
struct ErrorCallbackInfo {
  ChainedStruct* next;
  ErrorCallback callback;
  void* user_data[2];
};
struct QueueDescriptor {
  ChainedStruct* next;
  StringView label;
};
struct DeviceDescriptor {
  ChainedStruct* next;
  StringView label;
  size_t num_required_features;
  const FeatureName* required_features;
  const Limits* required_limits;
  QueueDescriptor queue;
  CallbackInfo<DeviceLostCallback> device_lost;
  ErrorCallbackInfo uncaptured_error;
};
struct BufferDescriptor {
  ChainedStruct* next;
  StringView label;
  Flags usage;
  uint64_t size;
  Bool mapped_at_creation;
};
struct BufferBindingLayout {
  ChainedStruct* next;
  BufferBindingType type;
  Bool has_dynamic_offset;
  uint64_t min_binding_size;
};
struct BindGroupLayoutEntry {
  ChainedStruct* next;
  uint32_t binding;
  Flags visibility;
  uint32_t binding_array_size;
  BufferBindingLayout buffer;
  struct {
    ChainedStruct* next;
    uint32_t type;
  } sampler;
  struct {
    ChainedStruct* next;
    uint32_t sample_type, view_dimension;
    Bool multisampled;
  } texture;
  struct {
    ChainedStruct* next;
    uint32_t access, format, view_dimension;
  } storage_texture;
};
struct BindGroupLayoutDescriptor {
  ChainedStruct* next;
  StringView label;
  size_t num_entries;
  const BindGroupLayoutEntry* entries;
};
struct PipelineLayoutDescriptor {
  ChainedStruct* next;
  StringView label;
  size_t num_bind_group_layouts;
  const BindGroupLayout* bind_group_layouts;
  uint32_t immediate_bytes;
};
struct ShaderSourceWgsl {
  ChainedStruct chain;
  StringView code;
};
struct ShaderModuleDescriptor {
  ChainedStruct* next;
  StringView label;
};
struct ComputePipelineDescriptor {
  ChainedStruct* next;
  StringView label;
  PipelineLayout layout;
  struct {
    ChainedStruct* next;
    ShaderModule module;
    StringView entry_point;
    size_t num_constants;
    const void* constants;
  } compute;
};
struct BindGroupEntry {
  ChainedStruct* next;
  uint32_t binding;
  Buffer buffer;
  uint64_t offset;
  uint64_t size;
  void* sampler;
  void* texture_view;
};
struct BindGroupDescriptor {
  ChainedStruct* next;
  StringView label;
  BindGroupLayout layout;
  size_t num_entries;
  const BindGroupEntry* entries;
};
struct PassTimestampWrites {
  ChainedStruct* next;
  QuerySet query_set;
  uint32_t begin_index;
  uint32_t end_index;
};
struct ComputePassDescriptor {
  ChainedStruct* next;
  StringView label;
  const PassTimestampWrites* timestamp_writes;
};
struct QuerySetDescriptor {
  ChainedStruct* next;
  StringView label;
  QueryType type;
  uint32_t count;
};

// The functions of the library, by webgpu.h's names without `wgpu`.
struct Api {
  uint32_t (*GetVersion)();
  Instance (*CreateInstance)(const InstanceDescriptor*);
  size_t (*InstanceEnumerateAdapters)(Instance, const EnumerateAdapterOptions*, Adapter*);
  uint32_t (*AdapterGetInfo)(Adapter, AdapterInfo*);
  void (*AdapterInfoFreeMembers)(AdapterInfo);
  uint32_t (*AdapterGetLimits)(Adapter, Limits*);
  Bool (*AdapterHasFeature)(Adapter, FeatureName);
  Future (*AdapterRequestDevice)(Adapter, const DeviceDescriptor*,
                                 CallbackInfo<RequestDeviceCallback>);
  Queue (*DeviceGetQueue)(Device);
  Bool (*DevicePoll)(Device, Bool wait, const uint64_t* submission);
  void (*DeviceDestroy)(Device);
  Buffer (*DeviceCreateBuffer)(Device, const BufferDescriptor*);
  void (*BufferDestroy)(Buffer);
  void (*BufferRelease)(Buffer);
  Future (*BufferMapAsync)(Buffer, Flags mode, size_t offset, size_t bytes,
                           CallbackInfo<BufferMapCallback>);
  const void* (*BufferGetConstMappedRange)(Buffer, size_t offset, size_t bytes);
  void (*BufferUnmap)(Buffer);
  BindGroupLayout (*DeviceCreateBindGroupLayout)(Device, const BindGroupLayoutDescriptor*);
  void (*BindGroupLayoutRelease)(BindGroupLayout);
  PipelineLayout (*DeviceCreatePipelineLayout)(Device, const PipelineLayoutDescriptor*);
  void (*PipelineLayoutRelease)(PipelineLayout);
  ShaderModule (*DeviceCreateShaderModule)(Device, const ShaderModuleDescriptor*);
  void (*ShaderModuleRelease)(ShaderModule);
  ComputePipeline (*DeviceCreateComputePipeline)(Device, const ComputePipelineDescriptor*);
  void (*ComputePipelineRelease)(ComputePipeline);
  BindGroup (*DeviceCreateBindGroup)(Device, const BindGroupDescriptor*);
  void (*BindGroupRelease)(BindGroup);
  CommandEncoder (*DeviceCreateCommandEncoder)(Device, const void* descriptor);
  void (*CommandEncoderRelease)(CommandEncoder);
  CommandBuffer (*CommandEncoderFinish)(CommandEncoder, const void* descriptor);
  void (*CommandBufferRelease)(CommandBuffer);
  void (*CommandEncoderCopyBufferToBuffer)(CommandEncoder, Buffer from, uint64_t from_offset,
                                           Buffer to, uint64_t to_offset, uint64_t bytes);
  void (*CommandEncoderResolveQuerySet)(CommandEncoder, QuerySet, uint32_t first, uint32_t count,
                                        Buffer to, uint64_t to_offset);
  ComputePassEncoder (*CommandEncoderBeginComputePass)(CommandEncoder,
                                                       const ComputePassDescriptor*);
  void (*ComputePassEncoderSetPipeline)(ComputePassEncoder, ComputePipeline);
  void (*ComputePassEncoderSetBindGroup)(ComputePassEncoder, uint32_t index, BindGroup,
                                         size_t num_offsets, const uint32_t* offsets);
  void (*ComputePassEncoderDispatchWorkgroups)(ComputePassEncoder, uint32_t, uint32_t, uint32_t);
  void (*ComputePassEncoderEnd)(ComputePassEncoder);
  void (*ComputePassEncoderRelease)(ComputePassEncoder);
  void (*QueueWriteBuffer)(Queue, Buffer, uint64_t offset, const void* data, size_t bytes);
  void (*QueueSubmit)(Queue, size_t count, const CommandBuffer*);
  float (*QueueGetTimestampPeriod)(Queue);
  QuerySet (*DeviceCreateQuerySet)(Device, const QuerySetDescriptor*);
  void (*QuerySetRelease)(QuerySet);
};

// Opens the library at `path`. Throws std::runtime_error with one sentence if it is another one.
Api LoadApi(const std::string& path);

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_WGPU_NATIVE_H_
