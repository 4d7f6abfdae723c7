// Models as Python makes them: cupola.model.*
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/reflection/registry.h>

#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "ffi/objects.h"
#include "model/compiled_model.h"
#include "model/scripted_model.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

ModelRef MakeModel(std::shared_ptr<Model> model) {
  return ModelRef(ffi::make_object<ModelObj>(std::move(model)));
}

ModelRef MakeScripted(int64_t vocab_size, int64_t first_id, int64_t num_ids, int64_t eos_id,
                      int64_t eos_every, int64_t poison_id, int64_t page_size, int64_t window,
                      int64_t step_us, int64_t token_us, int64_t fail_at_step, int64_t fail_steps) {
  Script script;
  script.vocab_size = static_cast<int32_t>(vocab_size);
  script.first_id = static_cast<int32_t>(first_id);
  script.num_ids = static_cast<int32_t>(num_ids);
  script.eos_id = static_cast<int32_t>(eos_id);
  script.eos_every = static_cast<int32_t>(eos_every);
  script.poison_id = static_cast<int32_t>(poison_id);
  script.page_size = static_cast<int32_t>(page_size);
  script.window = static_cast<int32_t>(window);
  script.step_us = step_us;
  script.token_us = token_us;
  script.fail_at_step = fail_at_step;
  script.fail_steps = fail_steps;
  return MakeModel(std::make_shared<ScriptedModel>(script));
}

ModelRef MakeCompiled(ffi::String library, DLDevice device, ffi::String alloc_kv_cache_name,
                      ffi::String forward_name, ffi::String decode_name, ffi::String sample_name,
                      int64_t vocab_size, int64_t page_size, int64_t window,
                      ffi::Shape window_layers, int64_t max_step_tokens, int64_t max_batch,
                      bool record_steps, ffi::Array<ffi::Tensor> weights) {
  ModelInfo info;
  info.vocab_size = static_cast<int32_t>(vocab_size);
  info.page_size = static_cast<int32_t>(page_size);
  info.window = static_cast<int32_t>(window);
  info.window_layers.assign(window_layers.begin(), window_layers.end());
  info.max_step_tokens = static_cast<int32_t>(max_step_tokens);
  info.max_batch = static_cast<int32_t>(max_batch);
  const FunctionNames names{alloc_kv_cache_name, forward_name, decode_name, sample_name};
  return MakeModel(std::make_shared<CompiledModel>(library, device, names, info, std::move(weights),
                                                   record_steps));
}

CompiledModel* CompiledOf(const ModelRef& model) {
  auto* compiled = dynamic_cast<CompiledModel*>(model->model.get());
  if (compiled == nullptr) TVM_FFI_THROW(TypeError) << "this model is not a compiled one";
  return compiled;
}

std::vector<int32_t> ValuesOf(const ffi::Tensor& vector) {
  const auto* values = static_cast<const int32_t*>(vector.data_ptr());
  return {values, values + vector.numel()};
}

// The arguments of a step, as the members of StepInput; logits [m, logit_stride] that belong
// to the model and live until its next step.
ffi::Tensor ForwardOnce(ModelRef model, ffi::Array<ffi::Tensor> step) {
  StepInput input;
  std::vector<int32_t>* members[] = {
      &input.ids,          &input.positions,      &input.slots,  &input.q_indptr,
      &input.page_indptr,  &input.page_ids,       &input.kv_len, &input.out_rows,
      &input.window_slots, &input.window_page_ids};
  if (step.size() != std::size(members)) TVM_FFI_THROW(ValueError) << "forward takes 10 tensors";
  for (size_t i = 0; i < std::size(members); ++i) *members[i] = ValuesOf(step[i]);
  const LogitsView logits = CompiledOf(model)->Forward(input);
  struct Borrowed {
    ModelRef model;
    float* rows;
    void AllocData(DLTensor* tensor) { tensor->data = rows; }
    void FreeData(DLTensor*) {}
  };
  return ffi::Tensor::FromNDAlloc(Borrowed{model, logits.data},
                                  ffi::Shape({logits.num_rows, logits.stride}),
                                  DLDataType{kDLFloat, 32, 1}, DLDevice{kDLCPU, 0});
}

// Of decodes, and then of samples: how many were called, recorded, replayed.
ffi::Shape StepCountsOf(ModelRef model) {
  const CompiledModel* compiled = CompiledOf(model);
  std::vector<int64_t> counts;
  for (const StepCounts* steps : {compiled->decode_counts(), compiled->sample_counts()}) {
    const StepCounts none;
    const StepCounts& some = steps != nullptr ? *steps : none;
    counts.insert(counts.end(), {some.called, some.recorded, some.replayed});
  }
  return ffi::Shape(counts);
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::ObjectDef<ModelObj>();
  refl::GlobalDef()
      .def("cupola.model.scripted", MakeScripted)
      .def("cupola.model.compiled", MakeCompiled)
      .def("cupola.model.alloc_kv_cache",
           [](ModelRef model, int64_t num_pages, int64_t num_window_pages) {
             CompiledOf(model)->AllocKvCache(static_cast<int32_t>(num_pages),
                                             static_cast<int32_t>(num_window_pages));
           })
      .def("cupola.model.forward", ForwardOnce)
      .def("cupola.model.step_counts", StepCountsOf);
}

}  // namespace cupola
