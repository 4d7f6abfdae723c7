#include "sampling/top_k.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace cupola {

void TopK::Find(const float* logits, int32_t size, const std::vector<float>& block_max, int32_t k,
                std::vector<Candidate>* found) {
  found->clear();
  CollectAtLeast(logits, size, block_max, Bound(block_max, k), found);
  if (static_cast<int32_t>(found->size()) > k) {
    std::nth_element(found->begin(), found->begin() + (k - 1), found->end(), MoreProbable);
    found->resize(k);
  }
  std::sort(found->begin(), found->end(), MoreProbable);
}

float TopK::Bound(const std::vector<float>& block_max, int32_t k) {
  if (k > static_cast<int32_t>(block_max.size())) return std::numeric_limits<float>::lowest();
  bounds_ = block_max;
  std::nth_element(bounds_.begin(), bounds_.begin() + (k - 1), bounds_.end(), std::greater<>());
  return bounds_[k - 1];
}

}  // namespace cupola
