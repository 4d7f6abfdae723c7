#include "model/library.h"

#include <tvm/ffi/container/shape.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <stdexcept>

#include "model/library_threads.h"
#include "support/clock.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

constexpr DLDevice kCpu{kDLCPU, 0};
constexpr DLDataType kInt32{kDLInt, 32, 1};
constexpr size_t kAlignment = 64;  // what compiled kernels expect of their arguments

struct AlignedAlloc {
  void AllocData(DLTensor* tensor) {
    const size_t bytes = (ffi::GetDataSize(*tensor) + kAlignment - 1) / kAlignment * kAlignment;
    tensor->data = std::aligned_alloc(kAlignment, std::max(bytes, kAlignment));
    if (tensor->data == nullptr) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

ffi::Module LoadVirtualMachine(const std::string& path) {
  // The VM's own enumerations: kDLCPU, and 2 for its pooled allocator, for device and host.
  constexpr int kPooledAllocator = 2;
  const ffi::Module executable = ffi::Module::LoadFromFile(path);
  RunOnTeams(path);
  const auto load = executable->GetFunction("vm_load_executable");
  if (!load.has_value()) throw std::runtime_error(path + " holds no compiled model");
  ffi::Module vm = load.value()().cast<ffi::Module>();
  const int cpu = static_cast<int>(kDLCPU);
  vm->GetFunction("vm_initialization").value()(cpu, 0, kPooledAllocator, cpu, 0, kPooledAllocator);
  return vm;
}

}  // namespace

Library::Library(const std::string& path) : vm_(LoadVirtualMachine(path)) {}

ffi::Function Library::FunctionOf(const std::string& name) const {
  const auto function = vm_->GetFunction(name);
  if (!function.has_value()) throw std::runtime_error("the library has no function " + name);
  return function.value();
}

ffi::Tensor StepBuffer::View(const std::vector<int32_t>& values) {
  const int64_t size = static_cast<int64_t>(values.size());
  if (!storage_.has_value() || storage_.value().numel() < size) {
    storage_ = ffi::Tensor::FromNDAlloc(AlignedAlloc(), ffi::Shape({2 * size}), kInt32, kCpu);
  }
  std::copy(values.begin(), values.end(), static_cast<int32_t*>(storage_.value().data_ptr()));
  return storage_.value().as_strided(ffi::Shape({size}), ffi::Shape({1}));
}

ffi::Tensor StepThreads::Run(const std::function<ffi::Tensor()>& step) {
  const int64_t begin = WallNs();
  const TeamScope scope(&team_, budget_.Choose(begin));
  try {
    ffi::Tensor result = step();
    const int64_t end = WallNs();
    budget_.Record(end, end - begin, team_.stalled_ns());
    return result;
  } catch (const ffi::Error& error) {
    // Its what() is a traceback of many lines; a request's error is one sentence.
    throw std::runtime_error(error.kind() + ": " + error.message());
  }
}

}  // namespace cupola
