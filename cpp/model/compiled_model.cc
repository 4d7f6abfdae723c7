#include "model/compiled_model.h"

#include <tvm/ffi/container/shape.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <utility>

namespace cupola {

namespace ffi = tvm::ffi;

CompiledModel::CompiledModel(const std::string& library, const std::string& alloc_kv_cache_name,
                             const std::string& forward_name, const ModelInfo& info,
                             ffi::Array<ffi::Tensor> weights)
    : info_(info),
      library_(library),
      alloc_kv_cache_(library_.FunctionOf(alloc_kv_cache_name)),
      forward_(library_.FunctionOf(forward_name)),
      weights_(std::move(weights)) {}

void CompiledModel::Start(int32_t num_pages, const TeamOptions& threads) {
  AllocKvCache(num_pages);
  threads_ = std::make_unique<StepThreads>(threads);
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
  if (threads_ == nullptr) throw std::logic_error("forward before start");
  logits_ = threads_->Run([this, &step] { return ForwardTensors(step); });
  const ffi::Tensor& logits = logits_.value();
  return {static_cast<float*>(logits.data_ptr()), logits.size(0), logits.size(1)};
}

ffi::Tensor CompiledModel::ForwardTensors(const std::vector<ffi::Tensor>& step) {
  if (step.size() != kNumStepArguments) throw std::invalid_argument("forward takes 8 tensors");
  if (!kv_cache_.has_value()) throw std::logic_error("forward before alloc_kv_cache");
  return forward_(step[0], step[1], step[2], step[3], step[4], step[5], step[6], step[7],
                  kv_cache_.value(), weights_)
      .cast<ffi::Tensor>();
}

}  // namespace cupola
