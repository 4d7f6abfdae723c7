// Log-probabilities of one row of raw logits.
#ifndef CUPOLA_SAMPLING_LOGPROBS_H_
#define CUPOLA_SAMPLING_LOGPROBS_H_

#include <cstdint>
#include <vector>

#include "sampling/sampled.h"
#include "sampling/top_k.h"

namespace cupola {

// Holds scratch memory only; one for each thread.
class LogprobReader {
 public:
  // Appends the log-probability of `token`, then those of the `top` most probable ids of `logits`
  // [size], best first; all ids if there are fewer. False, and nothing appended, if a logit is NaN
  // or infinite.
  bool Read(const float* logits, int32_t size, int32_t token, int32_t top, TokenLogprobs* out);

 private:
  TopK top_k_;
  std::vector<float> block_max_;
  std::vector<Candidate> best_;
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_LOGPROBS_H_
