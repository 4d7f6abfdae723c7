#include "model/compiled_encoder.h"

#include <stdexcept>
#include <utility>

namespace cupola {

namespace ffi = tvm::ffi;

CompiledEncoder::CompiledEncoder(const std::string& library, DLDevice device,
                                 const std::string& embed_name, const EncoderInfo& info,
                                 ffi::Array<ffi::Tensor> weights)
    : info_(info),
      memory_(DeviceMemory::Of(device)),
      library_(library, device),
      embed_(library_.FunctionOf(embed_name)),
      weights_(memory_.has_value() ? memory_->Copies(weights) : std::move(weights)),
      arguments_(memory_.has_value() ? &*memory_ : nullptr) {}

void CompiledEncoder::Start(const TeamOptions& threads) {
  if (!memory_.has_value()) threads_ = std::make_unique<StepThreads>(threads);
}

void CompiledEncoder::Stop() { threads_ = nullptr; }

const float* CompiledEncoder::Embed(const EncoderInput& input) {
  if (!memory_.has_value()) {
    if (threads_ == nullptr) throw std::logic_error("embed before start");
    vectors_ = threads_->Run([&] { return Call(input); });
    return static_cast<const float*>(vectors_.value().data_ptr());
  }
  Translated([&] {
    memory_->Enter();
    vectors_ = Call(input);
    host_vectors_.resize(vectors_.value().numel());
    memory_->Download(vectors_.value(), host_vectors_.data());
  });
  return host_vectors_.data();
}

ffi::Tensor CompiledEncoder::Call(const EncoderInput& input) {
  const std::vector<ffi::Tensor> step =
      arguments_.Place({&input.ids, &input.positions, &input.types, &input.q_indptr});
  return embed_(step[0], step[1], step[2], step[3], weights_).cast<ffi::Tensor>();
}

}  // namespace cupola
