// Compares cpp/device/webgpu/wgpu_native.h with the headers of the installed wheel, when compiled:
//
//   c++ -fsyntax-only -I cpp -I <wheel>/wgpu/resources tests/native/wgpu_native_layout.cc
#include <webgpu.h>
#include <wgpu.h>

#include "device/webgpu/wgpu_native.h"

namespace ours = cupola::wgpu;

#define SAME_SIZE(ours_type, type) static_assert(sizeof(ours::ours_type) == sizeof(WGPU##type))
#define SAME(ours_type, member, type, their)                                                    \
  static_assert(offsetof(ours::ours_type, member) == offsetof(WGPU##type, their));              \
  static_assert(sizeof(ours::ours_type::member) == sizeof(static_cast<WGPU##type*>(nullptr)->their))
#define SAME_VALUE(value, their) static_assert(static_cast<uint64_t>(ours::value) == their)

SAME_SIZE(StringView, StringView);
SAME_SIZE(ChainedStruct, ChainedStruct);
SAME(ChainedStruct, type, ChainedStruct, sType);
SAME_SIZE(Future, Future);

SAME_SIZE(InstanceExtras, InstanceExtras);
SAME(InstanceExtras, backends, InstanceExtras, backends);
SAME_SIZE(InstanceDescriptor, InstanceDescriptor);
SAME_SIZE(EnumerateAdapterOptions, InstanceEnumerateAdapterOptions);
SAME(EnumerateAdapterOptions, backends, InstanceEnumerateAdapterOptions, backends);

SAME_SIZE(AdapterInfo, AdapterInfo);
SAME(AdapterInfo, device, AdapterInfo, device);
SAME(AdapterInfo, description, AdapterInfo, description);
SAME(AdapterInfo, backend_type, AdapterInfo, backendType);
SAME(AdapterInfo, adapter_type, AdapterInfo, adapterType);

SAME_SIZE(Limits, Limits);
SAME(Limits, max_storage_buffers, Limits, maxStorageBuffersPerShaderStage);
SAME(Limits, max_storage_binding_bytes, Limits, maxStorageBufferBindingSize);
SAME(Limits, min_uniform_offset_alignment, Limits, minUniformBufferOffsetAlignment);
SAME(Limits, min_storage_offset_alignment, Limits, minStorageBufferOffsetAlignment);
SAME(Limits, max_buffer_bytes, Limits, maxBufferSize);
SAME(Limits, max_workgroup_storage_bytes, Limits, maxComputeWorkgroupStorageSize);
SAME(Limits, max_workgroup_invocations, Limits, maxComputeInvocationsPerWorkgroup);
SAME(Limits, max_workgroups_per_dimension, Limits, maxComputeWorkgroupsPerDimension);

SAME_SIZE(CallbackInfo<ours::RequestDeviceCallback>, RequestDeviceCallbackInfo);
SAME_SIZE(CallbackInfo<ours::BufferMapCallback>, BufferMapCallbackInfo);
SAME_SIZE(CallbackInfo<ours::DeviceLostCallback>, DeviceLostCallbackInfo);
SAME(CallbackInfo<ours::BufferMapCallback>, mode, BufferMapCallbackInfo, mode);
SAME(CallbackInfo<ours::BufferMapCallback>, callback, BufferMapCallbackInfo, callback);
SAME_SIZE(ErrorCallbackInfo, UncapturedErrorCallbackInfo);
SAME(ErrorCallbackInfo, callback, UncapturedErrorCallbackInfo, callback);

SAME_SIZE(DeviceDescriptor, DeviceDescriptor);
SAME(DeviceDescriptor, required_features, DeviceDescriptor, requiredFeatures);
SAME(DeviceDescriptor, required_limits, DeviceDescriptor, requiredLimits);
SAME(DeviceDescriptor, queue, DeviceDescriptor, defaultQueue);
SAME(DeviceDescriptor, device_lost, DeviceDescriptor, deviceLostCallbackInfo);
SAME(DeviceDescriptor, uncaptured_error, DeviceDescriptor, uncapturedErrorCallbackInfo);

SAME_SIZE(BufferDescriptor, BufferDescriptor);
SAME(BufferDescriptor, usage, BufferDescriptor, usage);
SAME(BufferDescriptor, size, BufferDescriptor, size);
SAME(BufferDescriptor, mapped_at_creation, BufferDescriptor, mappedAtCreation);

SAME_SIZE(BufferBindingLayout, BufferBindingLayout);
SAME(BufferBindingLayout, type, BufferBindingLayout, type);
SAME(BufferBindingLayout, has_dynamic_offset, BufferBindingLayout, hasDynamicOffset);
SAME(BufferBindingLayout, min_binding_size, BufferBindingLayout, minBindingSize);
SAME_SIZE(BindGroupLayoutEntry, BindGroupLayoutEntry);
SAME(BindGroupLayoutEntry, binding, BindGroupLayoutEntry, binding);
SAME(BindGroupLayoutEntry, visibility, BindGroupLayoutEntry, visibility);
SAME(BindGroupLayoutEntry, buffer, BindGroupLayoutEntry, buffer);
SAME(BindGroupLayoutEntry, sampler, BindGroupLayoutEntry, sampler);
SAME(BindGroupLayoutEntry, texture, BindGroupLayoutEntry, texture);
SAME(BindGroupLayoutEntry, storage_texture, BindGroupLayoutEntry, storageTexture);
SAME_SIZE(BindGroupLayoutDescriptor, BindGroupLayoutDescriptor);
SAME(BindGroupLayoutDescriptor, entries, BindGroupLayoutDescriptor, entries);

SAME_SIZE(PipelineLayoutDescriptor, PipelineLayoutDescriptor);
SAME(PipelineLayoutDescriptor, bind_group_layouts, PipelineLayoutDescriptor, bindGroupLayouts);
SAME_SIZE(ShaderSourceWgsl, ShaderSourceWGSL);
SAME(ShaderSourceWgsl, code, ShaderSourceWGSL, code);
SAME_SIZE(ShaderModuleDescriptor, ShaderModuleDescriptor);
SAME_SIZE(ComputePipelineDescriptor, ComputePipelineDescriptor);
SAME(ComputePipelineDescriptor, layout, ComputePipelineDescriptor, layout);
SAME(ComputePipelineDescriptor, compute, ComputePipelineDescriptor, compute);
SAME(ComputePipelineDescriptor, compute.module, ComputePipelineDescriptor, compute.module);
SAME(ComputePipelineDescriptor, compute.entry_point, ComputePipelineDescriptor, compute.entryPoint);

SAME_SIZE(BindGroupEntry, BindGroupEntry);
SAME(BindGroupEntry, binding, BindGroupEntry, binding);
SAME(BindGroupEntry, buffer, BindGroupEntry, buffer);
SAME(BindGroupEntry, offset, BindGroupEntry, offset);
SAME(BindGroupEntry, size, BindGroupEntry, size);
SAME_SIZE(BindGroupDescriptor, BindGroupDescriptor);
SAME(BindGroupDescriptor, layout, BindGroupDescriptor, layout);
SAME(BindGroupDescriptor, entries, BindGroupDescriptor, entries);

SAME_SIZE(PassTimestampWrites, PassTimestampWrites);
SAME(PassTimestampWrites, query_set, PassTimestampWrites, querySet);
SAME(PassTimestampWrites, begin_index, PassTimestampWrites, beginningOfPassWriteIndex);
SAME(PassTimestampWrites, end_index, PassTimestampWrites, endOfPassWriteIndex);
SAME_SIZE(ComputePassDescriptor, ComputePassDescriptor);
SAME(ComputePassDescriptor, timestamp_writes, ComputePassDescriptor, timestampWrites);
SAME_SIZE(QuerySetDescriptor, QuerySetDescriptor);
SAME(QuerySetDescriptor, type, QuerySetDescriptor, type);
SAME(QuerySetDescriptor, count, QuerySetDescriptor, count);

SAME_VALUE(SType::kShaderSourceWgsl, WGPUSType_ShaderSourceWGSL);
SAME_VALUE(SType::kInstanceExtras, WGPUSType_InstanceExtras);
SAME_VALUE(CallbackMode::kAllowSpontaneous, WGPUCallbackMode_AllowSpontaneous);
SAME_VALUE(AdapterType::kDiscreteGpu, WGPUAdapterType_DiscreteGPU);
SAME_VALUE(AdapterType::kIntegratedGpu, WGPUAdapterType_IntegratedGPU);
SAME_VALUE(AdapterType::kCpu, WGPUAdapterType_CPU);
SAME_VALUE(AdapterType::kUnknown, WGPUAdapterType_Unknown);
SAME_VALUE(BackendType::kD3D12, WGPUBackendType_D3D12);
SAME_VALUE(BackendType::kMetal, WGPUBackendType_Metal);
SAME_VALUE(BackendType::kVulkan, WGPUBackendType_Vulkan);
SAME_VALUE(BufferBindingType::kUniform, WGPUBufferBindingType_Uniform);
SAME_VALUE(BufferBindingType::kStorage, WGPUBufferBindingType_Storage);
SAME_VALUE(BufferBindingType::kReadOnlyStorage, WGPUBufferBindingType_ReadOnlyStorage);
SAME_VALUE(ErrorType::kValidation, WGPUErrorType_Validation);
SAME_VALUE(ErrorType::kOutOfMemory, WGPUErrorType_OutOfMemory);
SAME_VALUE(ErrorType::kInternal, WGPUErrorType_Internal);
SAME_VALUE(FeatureName::kTimestampQuery, WGPUFeatureName_TimestampQuery);
SAME_VALUE(FeatureName::kShaderF16, WGPUFeatureName_ShaderF16);
SAME_VALUE(FeatureName::kSubgroups, WGPUFeatureName_Subgroups);
SAME_VALUE(FeatureName::kNativeSubgroup, WGPUNativeFeature_Subgroup);
SAME_VALUE(MapAsyncStatus::kSuccess, WGPUMapAsyncStatus_Success);
SAME_VALUE(RequestStatus::kSuccess, WGPURequestDeviceStatus_Success);
SAME_VALUE(DeviceLostReason::kUnknown, WGPUDeviceLostReason_Unknown);
SAME_VALUE(QueryType::kTimestamp, WGPUQueryType_Timestamp);
SAME_VALUE(kMapRead, WGPUMapMode_Read);
SAME_VALUE(kUsageMapRead, WGPUBufferUsage_MapRead);
SAME_VALUE(kUsageCopySrc, WGPUBufferUsage_CopySrc);
SAME_VALUE(kUsageCopyDst, WGPUBufferUsage_CopyDst);
SAME_VALUE(kUsageUniform, WGPUBufferUsage_Uniform);
SAME_VALUE(kUsageStorage, WGPUBufferUsage_Storage);
SAME_VALUE(kUsageQueryResolve, WGPUBufferUsage_QueryResolve);
SAME_VALUE(kStageCompute, WGPUShaderStage_Compute);
SAME_VALUE(kBackendsPrimary, WGPUInstanceBackend_Primary);
