#include "device/opencl/program.h"

#include <memory>
#include <type_traits>

#include "device/device_error.h"

namespace cupola::opencl {

namespace {

using OwnedProgram = std::shared_ptr<std::remove_pointer_t<Program>>;

// pocl 3.1 loses branches that have barriers in them when a kernel is optimized before it becomes
// loops over threads, which it does on processors.
const char* OptionsFor(const DeviceDescription& device) {
  const bool loops = device.platform == "Portable Computing Language" && device.type & kTypeCpu;
  return loops ? "-cl-opt-disable" : "";
}

std::string BuildLog(const Gpu& gpu, Program program) {
  size_t bytes = 0;
  gpu.api().GetProgramBuildInfo(program, gpu.device(), kProgramBuildLog, 0, nullptr, &bytes);
  std::string log(bytes, '\0');
  gpu.api().GetProgramBuildInfo(program, gpu.device(), kProgramBuildLog, bytes, log.data(),
                                nullptr);
  return OneLine(log.c_str());
}

}  // namespace

KernelHandle BuildKernel(const Gpu& gpu, const std::string& name, const std::string& source) {
  const Api& api = gpu.api();
  Status status = kSuccess;
  const char* text = source.data();
  const size_t length = source.size();
  const OwnedProgram program(api.CreateProgramWithSource(gpu.context(), 1, &text, &length, &status),
                             [&api](Program made) {
                               if (made != nullptr) api.ReleaseProgram(made);
                             });
  Check(status, "compiling the kernel " + name);
  const Device device = gpu.device();
  status =
      api.BuildProgram(program.get(), 1, &device, OptionsFor(gpu.description()), nullptr, nullptr);
  if (status == kBuildProgramFailure) {
    Raise(gpu.description().name + " cannot compile the kernel " + name + ": " +
          BuildLog(gpu, program.get()));
  }
  Check(status, "compiling the kernel " + name);
  const KernelHandle kernel = api.CreateKernel(program.get(), name.c_str(), &status);
  Check(status, "compiling the kernel " + name);
  return kernel;
}

}  // namespace cupola::opencl
