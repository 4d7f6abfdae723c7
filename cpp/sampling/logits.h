// Passes over one row of logits, in vectors.
//
// A row is read in blocks of 64, and every sum runs in a fixed order of 8 lanes: the result does
// not depend on the vector width of the machine.
#ifndef CUPOLA_SAMPLING_LOGITS_H_
#define CUPOLA_SAMPLING_LOGITS_H_

#include <cstdint>
#include <vector>

namespace cupola {

constexpr int32_t kLogitBlock = 64;

struct Candidate {
  float logit;
  float weight;  // exp((logit - max) / temperature)
  int32_t id;
};

// The largest logit, and the largest of each block in `*block_max`. False if any is NaN or
// infinite.
bool ScanRow(const float* logits, int32_t size, std::vector<float>* block_max, float* max);

// The lowest id whose logit is `max`.
int32_t FindFirst(const float* logits, int32_t size, const std::vector<float>& block_max,
                  float max);

// weights[i] = exp((logits[i] - max) / temperature), 0 where that is below `floor`; the sum of each
// block goes to `*block_sum`. Relative error about 1e-7.
void ComputeWeights(const float* logits, int32_t size, float max, float temperature, float floor,
                    std::vector<float>* weights, std::vector<double>* block_sum);

// exp((logit - max) / temperature) exactly as ComputeWeights has it.
float Weight(float logit, float max, float temperature);

// The sum of exp(logit - max) over the row.
double SumOfExp(const float* logits, int32_t size, float max);

// 1 + the number of ids that are more probable than `id`, or as probable and lower.
int32_t RankOf(const float* logits, int32_t size, int32_t id);

// Appends every id whose logit is at least `bound`, in order; blocks below it are skipped unread.
// Weights are left 0.
void CollectAtLeast(const float* logits, int32_t size, const std::vector<float>& block_max,
                    float bound, std::vector<Candidate>* candidates);

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_LOGITS_H_
