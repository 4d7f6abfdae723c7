#include "model/compiled_encoder.h"

#include <stdexcept>
#include <utility>

namespace cupola {

namespace ffi = tvm::ffi;

CompiledEncoder::CompiledEncoder(const std::string& library, const std::string& embed_name,
                                 const EncoderInfo& info, ffi::Array<ffi::Tensor> weights)
    : info_(info),
      library_(library),
      embed_(library_.FunctionOf(embed_name)),
      weights_(std::move(weights)) {}

void CompiledEncoder::Start(const TeamOptions& threads) {
  threads_ = std::make_unique<StepThreads>(threads);
}

void CompiledEncoder::Stop() { threads_ = nullptr; }

const float* CompiledEncoder::Embed(const EncoderInput& input) {
  if (threads_ == nullptr) throw std::logic_error("embed before start");
  const std::vector<ffi::Tensor> step =
      arguments_.Place({&input.ids, &input.positions, &input.types, &input.q_indptr});
  vectors_ = threads_->Run([this, &step] {
    return embed_(step[0], step[1], step[2], step[3], weights_).cast<ffi::Tensor>();
  });
  return static_cast<const float*>(vectors_.value().data_ptr());
}

}  // namespace cupola
