// An encoder whose every vector can be computed by hand: the double for tests of all above it.
//
//   h = 2166136261;  for each token t of type k: h = (((h xor t) * 16777619) + k) mod 2^32
//   component i = 1 + ((h >> (4 * i)) & 15),  i = 0 .. dimensions - 1
//
// A sequence that holds the token `poison_id` has NaN in every component; one that holds `fail_id`
// makes Embed throw.
#ifndef CUPOLA_MODEL_SCRIPTED_ENCODER_H_
#define CUPOLA_MODEL_SCRIPTED_ENCODER_H_

#include <cstdint>
#include <vector>

#include "model/encoder.h"

namespace cupola {

struct EncoderScript {
  int32_t vocab_size = 512;
  int32_t dimensions = 8;  // at most 8
  int32_t max_context = 64;
  int32_t max_step_tokens = 128;
  int32_t max_batch = 16;
  int32_t poison_id = -1;  // -1: none
  int32_t fail_id = -1;    // -1: none
  int64_t step_us = 0;     // microseconds that a step takes
};

class ScriptedEncoder : public Encoder {
 public:
  explicit ScriptedEncoder(const EncoderScript& script);

  const EncoderInfo& info() const override { return info_; }
  void Start(const TeamOptions&) override {}
  const float* Embed(const EncoderInput& input) override;

 private:
  const EncoderScript script_;
  EncoderInfo info_;
  std::vector<float> vectors_;
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_SCRIPTED_ENCODER_H_
