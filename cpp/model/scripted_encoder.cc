#include "model/scripted_encoder.h"

#include <chrono>
#include <limits>
#include <stdexcept>
#include <thread>

namespace cupola {

ScriptedEncoder::ScriptedEncoder(const EncoderScript& script) : script_(script) {
  info_.vocab_size = script.vocab_size;
  info_.num_types = 2;
  info_.dimensions = script.dimensions;
  info_.max_context = script.max_context;
  info_.max_step_tokens = script.max_step_tokens;
  info_.max_batch = script.max_batch;
}

const float* ScriptedEncoder::Embed(const EncoderInput& input) {
  if (script_.step_us > 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(script_.step_us));
  }
  const size_t num_sequences = input.q_indptr.size() - 1;
  const int32_t dimensions = script_.dimensions;
  vectors_.assign(num_sequences * dimensions, 0);
  for (size_t s = 0; s < num_sequences; ++s) {
    uint32_t hash = 2166136261u;
    bool poisoned = false;
    for (int32_t i = input.q_indptr[s]; i < input.q_indptr[s + 1]; ++i) {
      if (input.ids[i] == script_.fail_id) throw std::runtime_error("a token that fails");
      poisoned = poisoned || input.ids[i] == script_.poison_id;
      hash = (hash ^ static_cast<uint32_t>(input.ids[i])) * 16777619u;
      hash += static_cast<uint32_t>(input.types[i]);
    }
    for (int32_t i = 0; i < dimensions; ++i) {
      const float component = 1.0f + static_cast<float>(hash >> (4 * i) & 15u);
      vectors_[s * dimensions + i] = poisoned ? std::numeric_limits<float>::quiet_NaN() : component;
    }
  }
  return vectors_.data();
}

}  // namespace cupola
