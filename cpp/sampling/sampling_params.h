// How the next token of one request is chosen.
#ifndef CUPOLA_SAMPLING_SAMPLING_PARAMS_H_
#define CUPOLA_SAMPLING_SAMPLING_PARAMS_H_

#include <cstdint>

namespace cupola {

// In place of a token: the row could not be sampled.
constexpr int32_t kNoToken = -1;

struct SamplingParams {
  float temperature = 1.0f;  // 0 is greedy
  int32_t top_k = 0;         // 0 keeps all
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint64_t seed = 0;
  int32_t min_tokens = 0;  // stop ids are not sampled before that many tokens
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_SAMPLING_PARAMS_H_
