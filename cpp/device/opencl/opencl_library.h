// The part of OpenCL 1.2 that the OpenCL device uses, and the library that has it: the loader of
// all drivers of a machine, found at run time. A test compares it with Khronos' headers.
//
// Names are those of CL/cl.h without their prefix.
#ifndef CUPOLA_DEVICE_OPENCL_OPENCL_LIBRARY_H_
#define CUPOLA_DEVICE_OPENCL_OPENCL_LIBRARY_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace cupola::opencl {

using Platform = struct PlatformImpl*;
using Device = struct DeviceImpl*;
using ContextHandle = struct ContextImpl*;
using Queue = struct QueueImpl*;
using Mem = struct MemImpl*;
using Program = struct ProgramImpl*;
using KernelHandle = struct KernelImpl*;
using Event = struct EventImpl*;

using Status = int32_t;
using Bool = uint32_t;
using Flags = uint64_t;
using Info = uint32_t;  // what a Get...Info function is asked for

constexpr Status kSuccess = 0, kDeviceNotFound = -1, kMemObjectAllocationFailure = -4,
                 kOutOfResources = -5, kOutOfHostMemory = -6, kBuildProgramFailure = -11,
                 kInvalidWorkGroupSize = -54;
constexpr Status kPlatformNotFound = -1001;  // of the loader: no driver is installed

constexpr Flags kTypeCpu = 1 << 1, kTypeGpu = 1 << 2, kTypeAccelerator = 1 << 3,
                kTypeAll = 0xFFFFFFFF;
constexpr Flags kMemReadWrite = 1 << 0;
constexpr Flags kQueueProfiling = 1 << 1;

constexpr Info kPlatformName = 0x0902;
constexpr Info kDeviceType = 0x1000, kDeviceMaxWorkGroupSize = 0x1004,
               kDeviceMaxMemAllocSize = 0x1010, kDeviceMemBaseAddrAlign = 0x1019,
               kDeviceGlobalMemSize = 0x101F, kDeviceLocalMemSize = 0x1023,
               kDeviceEndianLittle = 0x1026, kDeviceAvailable = 0x1027,
               kDeviceCompilerAvailable = 0x1028, kDeviceName = 0x102B, kDriverVersion = 0x102D,
               kDeviceVersion = 0x102F, kDeviceExtensions = 0x1030;
constexpr Info kProgramBuildLog = 0x1183;
constexpr Info kProfilingStart = 0x1282, kProfilingEnd = 0x1283;
constexpr uint32_t kBufferCreateRegion = 0x1220;

// What a buffer within another one is created from.
struct BufferRegion {
  size_t origin;
  size_t size;
};

// Arguments that are always null here are declared as `const void*`.
struct Api {
  Status (*GetPlatformIDs)(uint32_t, Platform*, uint32_t*);
  Status (*GetPlatformInfo)(Platform, Info, size_t, void*, size_t*);
  Status (*GetDeviceIDs)(Platform, Flags, uint32_t, Device*, uint32_t*);
  Status (*GetDeviceInfo)(Device, Info, size_t, void*, size_t*);
  ContextHandle (*CreateContext)(const void*, uint32_t, const Device*, const void*, void*, Status*);
  Queue (*CreateCommandQueue)(ContextHandle, Device, Flags, Status*);
  Status (*ReleaseCommandQueue)(Queue);
  Mem (*CreateBuffer)(ContextHandle, Flags, size_t, void*, Status*);
  Mem (*CreateSubBuffer)(Mem, Flags, uint32_t, const void*, Status*);
  Status (*ReleaseMemObject)(Mem);
  Program (*CreateProgramWithSource)(ContextHandle, uint32_t, const char**, const size_t*, Status*);
  Status (*BuildProgram)(Program, uint32_t, const Device*, const char*, const void*, void*);
  Status (*GetProgramBuildInfo)(Program, Device, Info, size_t, void*, size_t*);
  Status (*ReleaseProgram)(Program);
  KernelHandle (*CreateKernel)(Program, const char*, Status*);
  Status (*SetKernelArg)(KernelHandle, uint32_t, size_t, const void*);
  Status (*EnqueueNDRangeKernel)(Queue, KernelHandle, uint32_t, const size_t*, const size_t*,
                                 const size_t*, uint32_t, const Event*, Event*);
  Status (*EnqueueReadBuffer)(Queue, Mem, Bool, size_t, size_t, void*, uint32_t, const Event*,
                              Event*);
  Status (*EnqueueWriteBuffer)(Queue, Mem, Bool, size_t, size_t, const void*, uint32_t,
                               const Event*, Event*);
  Status (*EnqueueCopyBuffer)(Queue, Mem, Mem, size_t, size_t, size_t, uint32_t, const Event*,
                              Event*);
  Status (*Flush)(Queue);
  Status (*Finish)(Queue);
  Status (*GetEventProfilingInfo)(Event, Info, size_t, void*, size_t*);
  Status (*ReleaseEvent)(Event);
};

// Loads the library. Throws std::runtime_error with one sentence.
Api LoadApi(const std::string& path);

// The name of a status, such as CL_OUT_OF_RESOURCES, or its number.
std::string StatusName(Status status);
// Throws ffi::Error unless it is kSuccess; `doing` completes "while ...".
void Check(Status status, const std::string& doing);

}  // namespace cupola::opencl

#endif  // CUPOLA_DEVICE_OPENCL_OPENCL_LIBRARY_H_
