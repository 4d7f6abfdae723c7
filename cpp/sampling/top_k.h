// The largest logits of a row, found without sorting it.
#ifndef CUPOLA_SAMPLING_TOP_K_H_
#define CUPOLA_SAMPLING_TOP_K_H_

#include <cstdint>
#include <vector>

#include "sampling/logits.h"

namespace cupola {

// More probable first; the lower id among equals.
inline bool MoreProbable(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Holds scratch memory only.
class TopK {
 public:
  // The `k` (at least 1) most probable ids of the row whose block maxima are `block_max`, best
  // first; all of them if there are fewer. Weights are left 0.
  void Find(const float* logits, int32_t size, const std::vector<float>& block_max, int32_t k,
            std::vector<Candidate>* found);
  // A cheap lower bound of the k-th largest logit: k blocks have one that is as large.
  float Bound(const std::vector<float>& block_max, int32_t k);

 private:
  std::vector<float> bounds_;
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_TOP_K_H_
