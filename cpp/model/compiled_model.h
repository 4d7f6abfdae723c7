// The typed door to a compiled library (a TVM Relax virtual machine), through tvm_ffi alone.
//
// It knows the names and the arguments of the library's functions, and owns its KV cache and its
// threads. Start, Forward and Stop are for one thread.
#ifndef CUPOLA_MODEL_COMPILED_MODEL_H_
#define CUPOLA_MODEL_COMPILED_MODEL_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/library.h"
#include "model/model.h"

namespace cupola {

class CompiledModel : public Model {
 public:
  // Loads `library` and looks its functions up. `weights` are the arguments of forward, in order.
  CompiledModel(const std::string& library, const std::string& alloc_kv_cache_name,
                const std::string& forward_name, const ModelInfo& info,
                tvm::ffi::Array<tvm::ffi::Tensor> weights);

  const ModelInfo& info() const override { return info_; }
  void Start(int32_t num_pages, const TeamOptions& threads) override;
  void Stop() override;
  void CopyPages(const std::vector<PageCopy>& copies) override;
  LogitsView Forward(const StepInput& input) override;

  void AllocKvCache(int32_t num_pages);
  // The library's forward on tensors as they are, on this thread alone: logits [m, logit_stride].
  tvm::ffi::Tensor ForwardTensors(const std::vector<tvm::ffi::Tensor>& step);

 private:
  static constexpr int kNumStepArguments = 8;

  const ModelInfo info_;
  const Library library_;
  tvm::ffi::Function alloc_kv_cache_;
  tvm::ffi::Function forward_;
  tvm::ffi::Array<tvm::ffi::Tensor> weights_;
  tvm::ffi::Optional<tvm::ffi::Array<tvm::ffi::Tensor>> kv_cache_;
  std::unique_ptr<StepThreads> threads_;  // between Start and Stop
  StepBuffer buffers_[kNumStepArguments];
  tvm::ffi::Optional<tvm::ffi::Tensor> logits_;  // keeps the rows of the last view alive
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_COMPILED_MODEL_H_
