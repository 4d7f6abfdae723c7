// The typed door to a compiled library (a TVM Relax virtual machine), through tvm_ffi alone.
//
// It knows the names and the arguments of the library's functions, and owns its KV cache, its
// weights on the device, and its threads where that is the CPU. Start, Forward and Stop are for one
// thread.
#ifndef CUPOLA_MODEL_COMPILED_MODEL_H_
#define CUPOLA_MODEL_COMPILED_MODEL_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device/device_memory.h"
#include "model/library.h"
#include "model/model.h"
#include "model/step_arguments.h"
#include "model/step_memory.h"
#include "model/step_recordings.h"

namespace cupola {

// The library's functions by name. `decode` is `forward` for steps in which every sequence has one
// row, `sample` is what a DeviceSampler needs; empty where the library has none.
struct FunctionNames {
  std::string alloc_kv_cache;
  std::string forward;
  std::string decode;
  std::string sample;
};

class CompiledModel : public Model, private DeviceSampler {
 public:
  // Loads `library` and looks its functions up. `weights` are the arguments of forward, in order,
  // in host memory: copied to `device`, or used where they are if that is the CPU. `record`:
  // decodes are recorded and replayed, where the device can.
  CompiledModel(const std::string& library, DLDevice device, const FunctionNames& names,
                const ModelInfo& info, tvm::ffi::Array<tvm::ffi::Tensor> weights, bool record);

  const ModelInfo& info() const override { return info_; }
  void Start(int32_t num_pages, int32_t num_window_pages, const TeamOptions& threads) override;
  void Stop() override;
  void CopyPages(const std::vector<PageCopy>& copies) override;
  // Between Start and Stop on the threads, otherwise on the calling thread alone.
  LogitsView Forward(const StepInput& input) override;
  DeviceSampler* device_sampler() override { return sample_.has_value() ? this : nullptr; }

  void AllocKvCache(int32_t num_pages, int32_t num_window_pages);

  // How decodes ran, and what samples from them; null where they are not recorded. Any thread may
  // look.
  const StepCounts* decode_counts() const { return decodes_ ? &decodes_->counts() : nullptr; }
  const StepCounts* sample_counts() const { return samples_ ? &samples_->counts() : nullptr; }

 private:
  using Tensors = std::vector<tvm::ffi::Tensor>;

  void Compute(const StepInput& input) override;
  SampledRows Sample(const AskedRows& rows) override;
  void Forget();
  tvm::ffi::Tensor Call(const StepInput& input);
  tvm::ffi::Tensor CallOnce(const StepRecordings::Call& call);
  Tensors Place(const StepInput& input, bool is_decode);
  tvm::ffi::Tensor CallStep(const tvm::ffi::Function& function, const Tensors& step) const;
  tvm::ffi::Tensor CallSample(const Tensors& lists) const;
  void CopyPage(int32_t src, int32_t dst, const tvm::ffi::Tensor& layer) const;
  float* OnHost(const tvm::ffi::Tensor& logits);

  const ModelInfo info_;
  const std::optional<DeviceMemory> memory_;  // nullopt: the CPU's
  const Library library_;
  tvm::ffi::Function alloc_kv_cache_;
  tvm::ffi::Function forward_;
  std::optional<tvm::ffi::Function> decode_;
  std::optional<tvm::ffi::Function> sample_;
  tvm::ffi::Array<tvm::ffi::Tensor> weights_;
  std::optional<tvm::ffi::Array<tvm::ffi::Tensor>> kv_cache_;
  std::unique_ptr<StepThreads> threads_;  // between Start and Stop, on the CPU
  StepArguments arguments_;
  std::vector<int32_t> padded_page_ids_, padded_window_page_ids_;  // of the last decode
  std::optional<tvm::ffi::Tensor> logits_;  // keeps the rows of the last view alive
  bool logits_recur_ = false;               // decodes_ says where they are
  std::vector<float> host_logits_;          // of the last step on a device
  StepArguments sample_arguments_;
  std::vector<int32_t> sampled_;             // what `sample_` returned last
  StepMemory memory_of_calls_;               // on a device, of steps that are not recorded
  std::unique_ptr<StepRecordings> decodes_;  // null: they are called
  std::unique_ptr<StepRecordings> samples_;  // of rows of decodes_; null: they are called
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_COMPILED_MODEL_H_
