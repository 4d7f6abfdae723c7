#include "device/opencl/program.h"

#include <algorithm>
#include <memory>
#include <sstream>
#include <type_traits>
#include <vector>

#include "device/device_error.h"

namespace cupola::opencl {

namespace {

using OwnedProgram = std::shared_ptr<std::remove_pointer_t<Program>>;

bool StartsWith(const std::string& line, const char* text) { return line.rfind(text, 0) == 0; }

// Whether threads of a block wait for each other within a branch. TVM writes a statement a line.
bool WaitsInBranch(const std::string& source) {
  std::istringstream lines(source);
  std::vector<bool> is_branch;  // of each block of statements around the line
  for (std::string line; std::getline(lines, line);) {
    line.erase(0, line.find_first_not_of(' '));
    if (StartsWith(line, "}") && !is_branch.empty()) is_branch.pop_back();
    if (StartsWith(line, "barrier(") && std::count(is_branch.begin(), is_branch.end(), true)) {
      return true;
    }
    if (!line.empty() && line.back() == '{') {
      is_branch.push_back(StartsWith(line, "if ") || StartsWith(line, "} else"));
    }
  }
  return false;
}

// On processors pocl makes loops of a block's threads. Version 3.1 loses branches with barriers in
// them when it optimizes a kernel before that.
const char* OptionsFor(const DeviceDescription& device, const std::string& source) {
  const bool loops = device.platform == "Portable Computing Language" && device.type & kTypeCpu;
  return loops && WaitsInBranch(source) ? "-cl-opt-disable" : "";
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
  status = api.BuildProgram(program.get(), 1, &device, OptionsFor(gpu.description(), source),
                            nullptr, nullptr);
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
