#include "model/compiled_model.h"

#include <tvm/ffi/container/shape.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>
#include <utility>

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

ffi::Module LoadVirtualMachine(const std::string& library) {
  // The VM's own enumerations: kDLCPU, and 2 for its pooled allocator, for device and host.
  constexpr int kPooledAllocator = 2;
  const ffi::Module executable = ffi::Module::LoadFromFile(library);
  RunOnTeams(library);
  const auto load = executable->GetFunction("vm_load_executable");
  if (!load.has_value()) throw std::runtime_error(library + " holds no compiled model");
  ffi::Module vm = load.value()().cast<ffi::Module>();
  const int cpu = static_cast<int>(kDLCPU);
  vm->GetFunction("vm_initialization").value()(cpu, 0, kPooledAllocator, cpu, 0, kPooledAllocator);
  return vm;
}

ffi::Function FunctionOf(const ffi::Module& vm, const std::string& name) {
  const auto function = vm->GetFunction(name);
  if (!function.has_value()) throw std::runtime_error("the library has no function " + name);
  return function.value();
}

}  // namespace

ffi::Tensor StepBuffer::View(const std::vector<int32_t>& values) {
  const int64_t size = static_cast<int64_t>(values.size());
  if (!storage_.has_value() || storage_.value().numel() < size) {
    storage_ = ffi::Tensor::FromNDAlloc(AlignedAlloc(), ffi::Shape({2 * size}), kInt32, kCpu);
  }
  std::copy(values.begin(), values.end(), static_cast<int32_t*>(storage_.value().data_ptr()));
  return storage_.value().as_strided(ffi::Shape({size}), ffi::Shape({1}));
}

CompiledModel::CompiledModel(const std::string& library, const std::string& alloc_kv_cache_name,
                             const std::string& forward_name, const ModelInfo& info,
                             ffi::Array<ffi::Tensor> weights)
    : info_(info),
      vm_(LoadVirtualMachine(library)),
      alloc_kv_cache_(FunctionOf(vm_, alloc_kv_cache_name)),
      forward_(FunctionOf(vm_, forward_name)),
      weights_(std::move(weights)) {}

void CompiledModel::Start(int32_t num_pages, const TeamOptions& threads) {
  AllocKvCache(num_pages);
  threads_ = std::make_unique<Threads>(threads);
}

void CompiledModel::Stop() { threads_ = nullptr; }

void CompiledModel::AllocKvCache(int32_t num_pages) {
  kv_cache_ = std::nullopt;  // two caches at once may not fit
  kv_cache_ = alloc_kv_cache_(ffi::Shape({num_pages})).cast<ffi::Array<ffi::Tensor>>();
}

void CompiledModel::CopyPages(const std::vector<PageCopy>& copies) {
  for (const ffi::Tensor& layer : kv_cache_.value()) {
    const size_t page_bytes = ffi::GetDataSize(*layer.GetDLTensorPtr()) / layer.size(0);
    char* pages = static_cast<char*>(layer.data_ptr());
    for (const PageCopy& copy : copies) {
      std::memcpy(pages + copy.dst * page_bytes, pages + copy.src * page_bytes, page_bytes);
    }
  }
}

LogitsView CompiledModel::Forward(const StepInput& input) {
  const std::vector<int32_t>* arguments[kNumStepArguments] = {
      &input.ids,         &input.positions, &input.slots,  &input.q_indptr,
      &input.page_indptr, &input.page_ids,  &input.kv_len, &input.out_rows};
  std::vector<ffi::Tensor> step;
  for (int i = 0; i < kNumStepArguments; ++i) step.push_back(buffers_[i].View(*arguments[i]));
  try {
    logits_ = ForwardOnTeam(step);
  } catch (const ffi::Error& error) {
    // Its what() is a traceback of many lines; a request's error is one sentence.
    throw std::runtime_error(error.kind() + ": " + error.message());
  }
  const ffi::Tensor& logits = logits_.value();
  return {static_cast<float*>(logits.data_ptr()), logits.size(0), logits.size(1)};
}

ffi::Tensor CompiledModel::ForwardOnTeam(const std::vector<ffi::Tensor>& step) {
  if (threads_ == nullptr) throw std::logic_error("forward before start");
  const int64_t begin = WallNs();
  const TeamScope scope(&threads_->team, threads_->budget.Choose(begin));
  ffi::Tensor logits = ForwardTensors(step);
  const int64_t end = WallNs();
  threads_->budget.Record(end, end - begin, threads_->team.stalled_ns());
  return logits;
}

ffi::Tensor CompiledModel::ForwardTensors(const std::vector<ffi::Tensor>& step) {
  if (step.size() != kNumStepArguments) throw std::invalid_argument("forward takes 8 tensors");
  if (!kv_cache_.has_value()) throw std::logic_error("forward before alloc_kv_cache");
  return forward_(step[0], step[1], step[2], step[3], step[4], step[5], step[6], step[7],
                  kv_cache_.value(), weights_)
      .cast<ffi::Tensor>();
}

}  // namespace cupola
