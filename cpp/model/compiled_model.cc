#include "model/compiled_model.h"

#include <tvm/ffi/container/shape.h>

#include <cstring>
#include <stdexcept>
#include <utility>

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

std::optional<DeviceMemory> MemoryOf(DLDevice device) {
  if (device.device_type == kDLCPU) return std::nullopt;
  return DeviceMemory(device);
}

// Whether every sequence has one row.
bool IsDecode(const StepInput& input) { return input.kv_len.size() == input.ids.size(); }

}  // namespace

CompiledModel::CompiledModel(const std::string& library, DLDevice device,
                             const FunctionNames& names, const ModelInfo& info,
                             ffi::Array<ffi::Tensor> weights)
    : info_(info),
      memory_(MemoryOf(device)),
      library_(library, device),
      alloc_kv_cache_(library_.FunctionOf(names.alloc_kv_cache)),
      forward_(library_.FunctionOf(names.forward)),
      arguments_(memory_.has_value() ? &*memory_ : nullptr) {
  if (!names.decode.empty()) decode_ = library_.FunctionOf(names.decode);
  weights_ = memory_.has_value() ? OnDevice(weights) : std::move(weights);
}

ffi::Array<ffi::Tensor> CompiledModel::OnDevice(const ffi::Array<ffi::Tensor>& tensors) {
  ffi::Array<ffi::Tensor> copies;
  for (const ffi::Tensor& tensor : tensors) {
    const ffi::Tensor copy = memory_->Empty(tensor.shape(), tensor.dtype());
    memory_->Upload(tensor.data_ptr(), copy);
    copies.push_back(copy);
  }
  return copies;
}

void CompiledModel::Start(int32_t num_pages, const TeamOptions& threads) {
  AllocKvCache(num_pages);
  if (!memory_.has_value()) threads_ = std::make_unique<StepThreads>(threads);
}

void CompiledModel::Stop() { threads_ = nullptr; }

void CompiledModel::AllocKvCache(int32_t num_pages) {
  kv_cache_ = std::nullopt;  // two caches at once may not fit
  Translated([&] {
    if (memory_.has_value()) memory_->Enter();
    kv_cache_ = alloc_kv_cache_(ffi::Shape({num_pages})).cast<ffi::Array<ffi::Tensor>>();
  });
}

void CompiledModel::CopyPages(const std::vector<PageCopy>& copies) {
  for (const ffi::Tensor& layer : kv_cache_.value()) {
    const size_t page_bytes = ffi::GetDataSize(*layer.GetDLTensorPtr()) / layer.size(0);
    for (const PageCopy& copy : copies) {
      const size_t from = copy.src * page_bytes;
      const size_t to = copy.dst * page_bytes;
      if (memory_.has_value()) {
        Translated([&] { memory_->Copy(layer, from, to, page_bytes); });
      } else {
        char* pages = static_cast<char*>(layer.data_ptr());
        std::memcpy(pages + to, pages + from, page_bytes);
      }
    }
  }
}

LogitsView CompiledModel::Forward(const StepInput& input) {
  const auto step = [&] { return Call(input); };
  logits_ = threads_ != nullptr ? threads_->Run(step) : Translated(step);
  const ffi::Tensor& logits = *logits_;
  float* rows = memory_.has_value() ? Translated([&] { return OnHost(logits); })
                                    : static_cast<float*>(logits.data_ptr());
  return {rows, logits.size(0), logits.size(1)};
}

ffi::Tensor CompiledModel::Call(const StepInput& input) {
  if (!kv_cache_.has_value()) throw std::logic_error("forward before alloc_kv_cache");
  if (memory_.has_value()) memory_->Enter();
  const std::vector<ffi::Tensor> step =
      arguments_.Place({&input.ids, &input.positions, &input.slots, &input.q_indptr,
                        &input.page_indptr, &input.page_ids, &input.kv_len, &input.out_rows});
  const ffi::Function& function = decode_.has_value() && IsDecode(input) ? *decode_ : forward_;
  return function(step[0], step[1], step[2], step[3], step[4], step[5], step[6], step[7],
                  *kv_cache_, weights_)
      .cast<ffi::Tensor>();
}

float* CompiledModel::OnHost(const ffi::Tensor& logits) {
  host_logits_.resize(logits.numel());
  memory_->Download(logits, host_logits_.data());
  return host_logits_.data();
}

}  // namespace cupola
