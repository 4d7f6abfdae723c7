#include "sampling/logprobs.h"

#include <algorithm>
#include <cmath>

namespace cupola {

bool LogprobReader::Read(const float* logits, int32_t size, int32_t token, int32_t top,
                         TokenLogprobs* out) {
  float max;
  if (!ScanRow(logits, size, &block_max_, &max)) return false;
  const double log_sum = std::log(SumOfExp(logits, size, max));
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - max - log_sum);
  };
  out->push_back({token, logprob(logits[token]), RankOf(logits, size, token)});
  if (top == 0) return true;
  top_k_.Find(logits, size, block_max_, std::min(top, size), &best_);
  int32_t rank = 0;
  for (const Candidate& one : best_) out->push_back({one.id, logprob(one.logit), ++rank});
  return true;
}

}  // namespace cupola
