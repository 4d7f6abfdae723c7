// From one row of logits to one token: temperature, then top-k, top-p, min-p, then a draw.
//
// A token depends on (logits, parameters, seed, position) only. It knows no requests.
#ifndef CUPOLA_SAMPLING_SAMPLER_H_
#define CUPOLA_SAMPLING_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "sampling/logits.h"
#include "sampling/sampling_params.h"
#include "sampling/top_k.h"

namespace cupola {

// Whether the largest logit is taken, whatever the random number.
bool IsGreedy(const SamplingParams& params);

// Holds scratch memory only; one for each thread that samples.
class Sampler {
 public:
  // The token for the sequence position `position`, or kNoToken if a logit is NaN or infinite, or
  // none is above kBanned.
  //   top-k keeps exactly k tokens, lower ids first among equals;
  //   top-p keeps the fewest tokens that hold at least top_p of what top-k left;
  //   min-p then drops those less probable than min_p times the best;
  //   the draw goes through what is left in order of the ids, as a device's sampler does.
  // Greedy (temperature 0) takes the largest logit, the lowest id among equals.
  int32_t Sample(const float* logits, int32_t vocab_size, const SamplingParams& params,
                 uint64_t position);

  // Whether no value of the row is NaN or infinite.
  bool IsFinite(const float* logits, int32_t vocab_size);

 private:
  int32_t SampleFinite(const float* logits, int32_t vocab_size, float max,
                       const SamplingParams& params, uint64_t position);
  int32_t DrawFromAll(const float* logits, int32_t vocab_size, float max,
                      const SamplingParams& params, double uniform);
  void KeepTopP(const float* logits, int32_t vocab_size, float max, const SamplingParams& params);
  void KeepTopPOfFlat(const float* logits, int32_t vocab_size, double mass);
  void WeighCandidates(float max, float temperature);

  TopK top_k_;
  std::vector<float> block_max_;
  std::vector<float> weights_;
  std::vector<double> block_sum_;
  std::vector<double> histogram_;
  std::vector<Candidate> candidates_;
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_SAMPLER_H_
