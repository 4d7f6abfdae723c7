// How the next token of one request is chosen.
#ifndef CUPOLA_SAMPLING_SAMPLING_PARAMS_H_
#define CUPOLA_SAMPLING_SAMPLING_PARAMS_H_

#include <cstdint>
#include <vector>

namespace cupola {

// In place of a token: the row could not be sampled.
constexpr int32_t kNoToken = -1;

// All ids are of the vocabulary: whoever takes requests from outside has checked that.
struct SamplingParams {
  float temperature = 1.0f;  // 0 is greedy
  int32_t top_k = 0;         // 0 keeps all
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint64_t seed = 0;
  int32_t min_tokens = 0;  // stop ids are not sampled before that many tokens
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;
  std::vector<int32_t> bias_ids;
  std::vector<float> bias_values;               // of each of `bias_ids`
  std::vector<int32_t> allowed_ids;             // empty allows all
  std::vector<std::vector<int32_t>> bad_words;  // token sequences that must not be completed

  bool penalizes() const {
    return presence_penalty != 0.0f || frequency_penalty != 0.0f || repetition_penalty != 1.0f;
  }
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_SAMPLING_PARAMS_H_
