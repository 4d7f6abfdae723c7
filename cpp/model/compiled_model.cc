#include "model/compiled_model.h"

#include <tvm/ffi/container/shape.h>

#include <cstring>
#include <stdexcept>
#include <utility>

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

// Steps that are kept; an engine meets as many as it has sizes of batches times rooms of contexts.
constexpr size_t kMostRecordings = 64;

// Whether every sequence has one row.
bool IsDecode(const StepInput& input) { return input.kv_len.size() == input.ids.size(); }

// What decides a step's grids and addresses: where arguments are placed follows from their lengths.
StepRecordings::Key KeyOf(const std::vector<ffi::Tensor>& step, const StepArguments& arguments) {
  StepRecordings::Key key{arguments.num_moves()};
  for (const ffi::Tensor& argument : step) key.push_back(argument.numel());
  return key;
}

// The values and as many zeros as fill their room, so that steps repeat while contexts grow.
const std::vector<int32_t>* Padded(const std::vector<int32_t>& values,
                                   std::vector<int32_t>* padded) {
  *padded = values;
  padded->resize(StepArguments::RoomFor(values.size()));
  return padded;
}

std::unique_ptr<StepRecordings> RecordingsOn(DLDevice device) {
  std::unique_ptr<Recorder> recorder = Translated([&] { return RecorderOf(device); });
  if (recorder == nullptr) return nullptr;
  return std::make_unique<StepRecordings>(std::move(recorder), kMostRecordings);
}

}  // namespace

CompiledModel::CompiledModel(const std::string& library, DLDevice device,
                             const FunctionNames& names, const ModelInfo& info,
                             ffi::Array<ffi::Tensor> weights, bool record)
    : info_(info),
      memory_(DeviceMemory::Of(device)),
      library_(library, device),
      alloc_kv_cache_(library_.FunctionOf(names.alloc_kv_cache)),
      forward_(library_.FunctionOf(names.forward)),
      arguments_(memory_.has_value() ? &*memory_ : nullptr),
      sample_arguments_(memory_.has_value() ? &*memory_ : nullptr) {
  if (!names.decode.empty()) decode_ = library_.FunctionOf(names.decode);
  if (!names.sample.empty()) sample_ = library_.FunctionOf(names.sample);
  if (record && decode_.has_value()) decodes_ = RecordingsOn(device);
  if (decodes_ != nullptr && sample_.has_value()) samples_ = RecordingsOn(device);
  weights_ = memory_.has_value() ? memory_->Copies(weights) : std::move(weights);
}

void CompiledModel::Start(int32_t num_pages, int32_t num_window_pages, const TeamOptions& threads) {
  AllocKvCache(num_pages, num_window_pages);
  if (!memory_.has_value()) threads_ = std::make_unique<StepThreads>(threads);
}

void CompiledModel::Stop() { threads_ = nullptr; }

void CompiledModel::AllocKvCache(int32_t num_pages, int32_t num_window_pages) {
  Forget();
  kv_cache_ = std::nullopt;  // two caches at once may not fit
  Translated([&] {
    if (memory_.has_value()) memory_->Enter();
    const ffi::Shape sizes =
        info_.window > 0 ? ffi::Shape({num_pages, num_window_pages}) : ffi::Shape({num_pages});
    kv_cache_ = alloc_kv_cache_(sizes).cast<ffi::Array<ffi::Tensor>>();
  });
}

// The results of steps and the memory that they had.
void CompiledModel::Forget() {
  logits_ = std::nullopt;
  for (StepRecordings* steps : {decodes_.get(), samples_.get()}) {
    if (steps != nullptr) steps->Drop();
  }
  memory_of_calls_.Release();
}

void CompiledModel::CopyPages(const std::vector<PageCopy>& copies) {
  auto next_window = info_.window_layers.begin();
  for (int32_t i = 0; i < static_cast<int32_t>(kv_cache_->size()); ++i) {
    const ffi::Tensor layer = (*kv_cache_)[i];
    const bool window = next_window != info_.window_layers.end() && *next_window == i;
    if (window) ++next_window;
    for (const PageCopy& copy : copies) {
      CopyPage(window ? copy.window_src : copy.src, window ? copy.window_dst : copy.dst, layer);
    }
  }
}

void CompiledModel::CopyPage(int32_t src, int32_t dst, const ffi::Tensor& layer) const {
  const size_t page_bytes = ffi::GetDataSize(*layer.GetDLTensorPtr()) / layer.size(0);
  const size_t from = src * page_bytes;
  const size_t to = dst * page_bytes;
  if (memory_.has_value()) {
    Translated([&] { memory_->Copy(layer, from, to, page_bytes); });
  } else {
    char* pages = static_cast<char*>(layer.data_ptr());
    std::memcpy(pages + to, pages + from, page_bytes);
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

void CompiledModel::Compute(const StepInput& input) {
  logits_ = Translated([&] { return Call(input); });
}

SampledRows CompiledModel::Sample(const AskedRows& rows) {
  const std::vector<int32_t> places(1 + rows.num_tops);
  Translated([&] {
    const Tensors lists =
        sample_arguments_.Place({&rows.settings, &rows.by_count, &rows.by_mass, &rows.reported,
                                 &rows.masks, &rows.edits, &places});
    const auto call = [&] { return CallSample(lists); };
    StepRecordings::Key key = KeyOf(lists, sample_arguments_);
    key.push_back(reinterpret_cast<int64_t>(logits_->data_ptr()));
    const bool recurs = logits_recur_ && samples_ != nullptr;
    const ffi::Tensor sampled = recurs ? samples_->Run(key, call) : CallOnce(call);
    sampled_.resize(sampled.numel());
    memory_->Download(sampled, sampled_.data());
  });
  return {sampled_.data(), rows.num_tops};
}

ffi::Tensor CompiledModel::CallSample(const Tensors& lists) const {
  return (*sample_)(*logits_, lists[0], lists[1], lists[2], lists[3], lists[4], lists[5], lists[6])
      .cast<ffi::Tensor>();
}

ffi::Tensor CompiledModel::Call(const StepInput& input) {
  if (!kv_cache_.has_value()) throw std::logic_error("forward before alloc_kv_cache");
  if (memory_.has_value()) memory_->Enter();
  const bool is_decode = decode_.has_value() && IsDecode(input);
  const Tensors step = Place(input, is_decode);
  logits_recur_ = is_decode && decodes_ != nullptr;
  const ffi::Function& function = is_decode ? *decode_ : forward_;
  const auto call = [&] { return CallStep(function, step); };
  return logits_recur_ ? decodes_->Run(KeyOf(step, arguments_), call) : CallOnce(call);
}

// A step that is not recorded.
ffi::Tensor CompiledModel::CallOnce(const StepRecordings::Call& call) {
  const StepMemory::Scope scope(memory_.has_value() ? &memory_of_calls_ : nullptr);
  return call();
}

CompiledModel::Tensors CompiledModel::Place(const StepInput& input, bool is_decode) {
  const std::vector<int32_t>* page_ids = &input.page_ids;
  const std::vector<int32_t>* window_page_ids = &input.window_page_ids;
  if (is_decode) {
    page_ids = Padded(input.page_ids, &padded_page_ids_);
    window_page_ids = Padded(input.window_page_ids, &padded_window_page_ids_);
  }
  std::vector<const std::vector<int32_t>*> values = {
      &input.ids,         &input.positions, &input.slots,  &input.q_indptr,
      &input.page_indptr, page_ids,         &input.kv_len, &input.out_rows};
  if (info_.window > 0) values.insert(values.end(), {&input.window_slots, window_page_ids});
  return arguments_.Place(values);
}

ffi::Tensor CompiledModel::CallStep(const ffi::Function& function, const Tensors& step) const {
  std::vector<ffi::AnyView> arguments(step.begin(), step.end());
  arguments.insert(arguments.end(), {*kv_cache_, weights_});
  ffi::Any logits;
  function.CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &logits);
  return logits.cast<ffi::Tensor>();
}

float* CompiledModel::OnHost(const ffi::Tensor& logits) {
  host_logits_.resize(logits.numel());
  memory_->Download(logits, host_logits_.data());
  return host_logits_.data();
}

}  // namespace cupola
