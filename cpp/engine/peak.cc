#include "engine/peak.h"

#include <algorithm>
#include <cmath>

namespace cupola {

int64_t PredictPeak(std::vector<Load>* loads) {
  std::sort(loads->begin(), loads->end(),
            [](const Load& a, const Load& b) { return a.left > b.left; });
  int64_t peak = 0;
  int64_t held = 0;
  int64_t count = 0;
  for (const Load& load : *loads) {
    held += load.held;
    ++count;
    peak = std::max(peak, load.left * count + held);
  }
  return peak;
}

void OutputEstimate::Record(int64_t length) {
  const double counted = std::max(static_cast<double>(length), kShortest);
  mean_ = std::floor(mean_ * (1 - weight_) + counted * weight_);
  weight_ = std::max(kSlowest, 0.8 * weight_);
}

int64_t OutputEstimate::Predict(int64_t generated, int64_t max_tokens) const {
  const int64_t outgrown = generated + generated / 10;
  return std::min(max_tokens, std::max(outgrown, static_cast<int64_t>(mean_)));
}

}  // namespace cupola
