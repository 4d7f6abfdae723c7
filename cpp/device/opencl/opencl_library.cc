#include "device/opencl/opencl_library.h"

#include <dlfcn.h>

#include <stdexcept>

#include "device/device_error.h"

namespace cupola::opencl {

namespace {

template <typename Function>
void Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function == nullptr) throw std::runtime_error(std::string("it has no function ") + name);
}

}  // namespace

Api LoadApi(const std::string& path) {
  void* library =
      dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: drivers have threads
  if (library == nullptr) throw std::runtime_error(dlerror());
  Api api;
#define CUPOLA_FIND(name) Find(library, "cl" #name, &api.name)
  CUPOLA_FIND(GetPlatformIDs);
  CUPOLA_FIND(GetPlatformInfo);
  CUPOLA_FIND(GetDeviceIDs);
  CUPOLA_FIND(GetDeviceInfo);
  CUPOLA_FIND(CreateContext);
  CUPOLA_FIND(CreateCommandQueue);
  CUPOLA_FIND(ReleaseCommandQueue);
  CUPOLA_FIND(CreateBuffer);
  CUPOLA_FIND(CreateSubBuffer);
  CUPOLA_FIND(ReleaseMemObject);
  CUPOLA_FIND(CreateProgramWithSource);
  CUPOLA_FIND(BuildProgram);
  CUPOLA_FIND(GetProgramBuildInfo);
  CUPOLA_FIND(ReleaseProgram);
  CUPOLA_FIND(CreateKernel);
  CUPOLA_FIND(SetKernelArg);
  CUPOLA_FIND(EnqueueNDRangeKernel);
  CUPOLA_FIND(EnqueueReadBuffer);
  CUPOLA_FIND(EnqueueWriteBuffer);
  CUPOLA_FIND(EnqueueCopyBuffer);
  CUPOLA_FIND(Flush);
  CUPOLA_FIND(Finish);
  CUPOLA_FIND(GetEventProfilingInfo);
  CUPOLA_FIND(ReleaseEvent);
#undef CUPOLA_FIND
  return api;
}

std::string StatusName(Status status) {
  switch (status) {
    case kDeviceNotFound:
      return "CL_DEVICE_NOT_FOUND";
    case kMemObjectAllocationFailure:
      return "CL_MEM_OBJECT_ALLOCATION_FAILURE";
    case kOutOfResources:
      return "CL_OUT_OF_RESOURCES";
    case kOutOfHostMemory:
      return "CL_OUT_OF_HOST_MEMORY";
    case kBuildProgramFailure:
      return "CL_BUILD_PROGRAM_FAILURE";
    case kInvalidWorkGroupSize:
      return "CL_INVALID_WORK_GROUP_SIZE";
    default:
      return "status " + std::to_string(status);
  }
}

void Check(Status status, const std::string& doing) {
  if (status == kSuccess) return;
  Raise("OpenCL error: " + StatusName(status) + " (while " + doing + ")");
}

}  // namespace cupola::opencl
