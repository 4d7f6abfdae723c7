#include "model/library.h"

#include <mutex>
#include <stdexcept>
#include <vector>

#include "model/library_threads.h"
#include "model/step_memory.h"
#include "support/clock.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

// The code in a library remembers where it found its kernels when it was loaded first, and who
// loads it again while it is loaded gets that same code.
void KeepForever(const ffi::Module& executable) {
  static std::mutex mutex;
  static auto* kept = new std::vector<ffi::Module>();
  const std::lock_guard<std::mutex> lock(mutex);
  kept->push_back(executable);
}

ffi::Module LoadVirtualMachine(const std::string& path, DLDevice device) {
  // The VM takes the device and the host: kind, number, and 2 for its pooled allocator.
  constexpr int kPooledAllocator = 2;
  const ffi::Module executable = ffi::Module::LoadFromFile(path);
  if (device.device_type != kDLCPU) {
    executable->ImportModule(StepMemory::Allocator());
    KeepForever(executable);
  }
  RunOnTeams(path);
  const auto load = executable->GetFunction("vm_load_executable");
  if (!load.has_value()) throw std::runtime_error(path + " holds no compiled model");
  ffi::Module vm = load.value()().cast<ffi::Module>();
  const int cpu = static_cast<int>(kDLCPU);
  const auto initialize = vm->GetFunction("vm_initialization").value();
  if (device.device_type == kDLCPU) {
    initialize(cpu, 0, kPooledAllocator, cpu, 0, kPooledAllocator);
  } else {
    const int kind = static_cast<int>(device.device_type);
    initialize(kind, device.device_id, kPooledAllocator, cpu, 0, kPooledAllocator);
  }
  return vm;
}

}  // namespace

Library::Library(const std::string& path, DLDevice device)
    : vm_(LoadVirtualMachine(path, device)) {}

ffi::Function Library::FunctionOf(const std::string& name) const {
  const auto function = vm_->GetFunction(name);
  if (!function.has_value()) throw std::runtime_error("the library has no function " + name);
  return function.value();
}

ffi::Tensor StepThreads::Run(const std::function<ffi::Tensor()>& step) {
  const int64_t begin = WallNs();
  const TeamScope scope(&team_, budget_.Choose(begin));
  ffi::Tensor result = Translated(step);
  const int64_t end = WallNs();
  budget_.Record(end, end - begin, team_.stalled_ns());
  return result;
}

}  // namespace cupola
