// Compares cpp/device/opencl/opencl_library.h with Khronos' headers, when compiled:
//
//   c++ -fsyntax-only -I cpp tests/native/opencl_layout.cc
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include <type_traits>

#include "device/opencl/opencl_library.h"

namespace ours = cupola::opencl;

// Two types that are passed alike: pointers, or numbers of one size.
template <typename A, typename B>
constexpr bool kAlike = std::is_pointer_v<A> == std::is_pointer_v<B> && sizeof(A) == sizeof(B) &&
                        std::is_signed_v<A> == std::is_signed_v<B>;

template <typename A, typename B>
struct Same : std::false_type {};
template <typename R, typename... A, typename S, typename... B>
struct Same<R (*)(A...), S (*)(B...)> {
  template <typename... C>
  struct List {};
  template <typename X, typename Y, bool = sizeof...(A) == sizeof...(B)>
  struct Arguments : std::false_type {};
  template <typename... X, typename... Y>
  struct Arguments<List<X...>, List<Y...>, true>
      : std::bool_constant<(kAlike<X, Y> && ...) && kAlike<R, S>> {};
  static constexpr bool value = Arguments<List<A...>, List<B...>>::value;
};

#define SAME_FUNCTION(name) \
  static_assert(Same<decltype(ours::Api::name), decltype(&cl##name)>::value)
#define SAME_VALUE(value, their) \
  static_assert(static_cast<uint64_t>(ours::value) == static_cast<uint64_t>(their))

SAME_FUNCTION(GetPlatformIDs);
SAME_FUNCTION(GetPlatformInfo);
SAME_FUNCTION(GetDeviceIDs);
SAME_FUNCTION(GetDeviceInfo);
SAME_FUNCTION(CreateContext);
SAME_FUNCTION(CreateCommandQueue);
SAME_FUNCTION(ReleaseCommandQueue);
SAME_FUNCTION(CreateBuffer);
SAME_FUNCTION(CreateSubBuffer);
SAME_FUNCTION(ReleaseMemObject);
SAME_FUNCTION(CreateProgramWithSource);
SAME_FUNCTION(BuildProgram);
SAME_FUNCTION(GetProgramBuildInfo);
SAME_FUNCTION(ReleaseProgram);
SAME_FUNCTION(CreateKernel);
SAME_FUNCTION(SetKernelArg);
SAME_FUNCTION(EnqueueNDRangeKernel);
SAME_FUNCTION(EnqueueReadBuffer);
SAME_FUNCTION(EnqueueWriteBuffer);
SAME_FUNCTION(EnqueueCopyBuffer);
SAME_FUNCTION(Flush);
SAME_FUNCTION(Finish);
SAME_FUNCTION(GetEventProfilingInfo);
SAME_FUNCTION(ReleaseEvent);

static_assert(sizeof(ours::Flags) == sizeof(cl_bitfield) && sizeof(ours::Info) == sizeof(cl_uint));
static_assert(sizeof(ours::Status) == sizeof(cl_int) && sizeof(ours::Bool) == sizeof(cl_bool));
static_assert(sizeof(ours::BufferRegion) == sizeof(cl_buffer_region));
static_assert(offsetof(ours::BufferRegion, origin) == offsetof(cl_buffer_region, origin));
static_assert(offsetof(ours::BufferRegion, size) == offsetof(cl_buffer_region, size));

SAME_VALUE(kSuccess, CL_SUCCESS);
SAME_VALUE(kDeviceNotFound, CL_DEVICE_NOT_FOUND);
SAME_VALUE(kMemObjectAllocationFailure, CL_MEM_OBJECT_ALLOCATION_FAILURE);
SAME_VALUE(kOutOfResources, CL_OUT_OF_RESOURCES);
SAME_VALUE(kOutOfHostMemory, CL_OUT_OF_HOST_MEMORY);
SAME_VALUE(kBuildProgramFailure, CL_BUILD_PROGRAM_FAILURE);
SAME_VALUE(kInvalidWorkGroupSize, CL_INVALID_WORK_GROUP_SIZE);
SAME_VALUE(kTypeCpu, CL_DEVICE_TYPE_CPU);
SAME_VALUE(kTypeGpu, CL_DEVICE_TYPE_GPU);
SAME_VALUE(kTypeAccelerator, CL_DEVICE_TYPE_ACCELERATOR);
SAME_VALUE(kTypeAll, CL_DEVICE_TYPE_ALL);
SAME_VALUE(kMemReadWrite, CL_MEM_READ_WRITE);
SAME_VALUE(kQueueProfiling, CL_QUEUE_PROFILING_ENABLE);
SAME_VALUE(kPlatformName, CL_PLATFORM_NAME);
SAME_VALUE(kDeviceType, CL_DEVICE_TYPE);
SAME_VALUE(kDeviceMaxWorkGroupSize, CL_DEVICE_MAX_WORK_GROUP_SIZE);
SAME_VALUE(kDeviceMaxMemAllocSize, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
SAME_VALUE(kDeviceMemBaseAddrAlign, CL_DEVICE_MEM_BASE_ADDR_ALIGN);
SAME_VALUE(kDeviceGlobalMemSize, CL_DEVICE_GLOBAL_MEM_SIZE);
SAME_VALUE(kDeviceLocalMemSize, CL_DEVICE_LOCAL_MEM_SIZE);
SAME_VALUE(kDeviceEndianLittle, CL_DEVICE_ENDIAN_LITTLE);
SAME_VALUE(kDeviceAvailable, CL_DEVICE_AVAILABLE);
SAME_VALUE(kDeviceCompilerAvailable, CL_DEVICE_COMPILER_AVAILABLE);
SAME_VALUE(kDeviceName, CL_DEVICE_NAME);
SAME_VALUE(kDriverVersion, CL_DRIVER_VERSION);
SAME_VALUE(kDeviceVersion, CL_DEVICE_VERSION);
SAME_VALUE(kDeviceExtensions, CL_DEVICE_EXTENSIONS);
SAME_VALUE(kProgramBuildLog, CL_PROGRAM_BUILD_LOG);
SAME_VALUE(kProfilingStart, CL_PROFILING_COMMAND_START);
SAME_VALUE(kProfilingEnd, CL_PROFILING_COMMAND_END);
SAME_VALUE(kBufferCreateRegion, CL_BUFFER_CREATE_TYPE_REGION);
