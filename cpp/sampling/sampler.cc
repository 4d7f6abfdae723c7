#include "sampling/sampler.h"

#include <algorithm>
#include <cstring>

#include "sampling/processors.h"
#include "support/rng.h"

namespace cupola {

namespace {

// Temperatures below this are greedy: dividing by them leaves only the largest logit anyway.
constexpr float kMinTemperature = 1e-5f;
// How many blocks top-p looks into first: nearly always enough for a trained model.
constexpr int32_t kFirstGuess = 32;

// Weights lie in [0, 1]; the bucket of a weight is the upper bits of the float.
constexpr int32_t kBucketShift = 19;
constexpr int32_t kNumBuckets = (0x3F800000 >> kBucketShift) + 1;

int32_t BucketOf(float weight) {
  int32_t bits;
  std::memcpy(&bits, &weight, sizeof(bits));
  return std::min(bits >> kBucketShift, kNumBuckets - 1);
}

double SumOf(std::vector<Candidate>::const_iterator begin,
             std::vector<Candidate>::const_iterator end) {
  double sum = 0;
  for (; begin != end; ++begin) sum += begin->weight;
  return sum;
}

bool LowerId(const Candidate& a, const Candidate& b) { return a.id < b.id; }

// Cuts `*candidates` from `first` on to the fewest, most probable ones whose weights reach `mass`:
// a quickselect that halves the range in question, so only a few elements are ever compared. All
// of them are then in order of their ids, as those before `first` were.
void SelectMass(double mass, size_t first, std::vector<Candidate>* candidates) {
  constexpr std::ptrdiff_t kSmall = 32;
  auto begin = candidates->begin() + static_cast<std::ptrdiff_t>(first);
  auto end = candidates->end();
  while (end - begin > kSmall) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, MoreProbable);
    const double upper = SumOf(begin, middle);
    if (upper >= mass) {
      end = middle;
    } else {
      mass -= upper;
      begin = middle;
    }
  }
  std::sort(begin, end, MoreProbable);
  while (begin != end && mass > 0) mass -= (begin++)->weight;
  candidates->erase(begin, candidates->end());
  const auto middle = candidates->begin() + static_cast<std::ptrdiff_t>(first);
  std::sort(middle, candidates->end(), LowerId);
  std::inplace_merge(candidates->begin(), middle, candidates->end(), LowerId);
}

int32_t DrawFrom(const std::vector<Candidate>& candidates, double uniform) {
  double rest = uniform * SumOf(candidates.begin(), candidates.end());
  for (const Candidate& candidate : candidates) {
    rest -= candidate.weight;
    if (rest < 0) return candidate.id;
  }
  return candidates.back().id;  // rounding ate the last sliver
}

}  // namespace

bool IsGreedy(const SamplingParams& params) {
  return !(params.temperature >= kMinTemperature) || params.top_k == 1;
}

int32_t Sampler::Sample(const float* logits, int32_t vocab_size, const SamplingParams& params,
                        uint64_t position) {
  float max;
  if (!ScanRow(logits, vocab_size, &block_max_, &max) || max == kBanned) return kNoToken;
  return SampleFinite(logits, vocab_size, max, params, position);
}

bool Sampler::IsFinite(const float* logits, int32_t vocab_size) {
  float max;
  return ScanRow(logits, vocab_size, &block_max_, &max);
}

int32_t Sampler::SampleFinite(const float* logits, int32_t vocab_size, float max,
                              const SamplingParams& params, uint64_t position) {
  if (IsGreedy(params)) return FindFirst(logits, vocab_size, block_max_, max);
  const double uniform = Uniform(params.seed, position);
  const bool limited = params.top_k > 0 && params.top_k < vocab_size;
  if (!limited && params.top_p >= 1.0f) {
    return DrawFromAll(logits, vocab_size, max, params, uniform);
  }
  candidates_.clear();
  if (limited) {
    top_k_.Find(logits, vocab_size, block_max_, params.top_k, &candidates_);
    WeighCandidates(max, params.temperature);
    if (params.top_p < 1.0f) {
      SelectMass(params.top_p * SumOf(candidates_.begin(), candidates_.end()), 0, &candidates_);
    } else {
      std::sort(candidates_.begin(), candidates_.end(), LowerId);
    }
  } else {
    KeepTopP(logits, vocab_size, max, params);
  }
  const auto improbable = [&](const Candidate& c) {
    return c.weight < params.min_p || c.weight == 0;
  };
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), improbable),
                    candidates_.end());
  return DrawFrom(candidates_, uniform);
}

int32_t Sampler::DrawFromAll(const float* logits, int32_t vocab_size, float max,
                             const SamplingParams& params, double uniform) {
  ComputeWeights(logits, vocab_size, max, params.temperature, params.min_p, &weights_, &block_sum_);
  double total = 0;
  for (double sum : block_sum_) total += sum;
  double rest = uniform * total;
  size_t block = 0;
  while (block + 1 < block_sum_.size() && rest >= block_sum_[block]) rest -= block_sum_[block++];
  const int32_t begin = static_cast<int32_t>(block) * kLogitBlock;
  const int32_t end = std::min(vocab_size, begin + kLogitBlock);
  int32_t last = -1;
  for (int32_t id = begin; id < end; ++id) {
    if (weights_[id] == 0.0f) continue;
    last = id;
    rest -= weights_[id];
    if (rest < 0) return id;
  }
  // Rounding ate the last sliver; a block with nothing in it at all falls back to the best token.
  return last >= 0 ? last : FindFirst(logits, vocab_size, block_max_, max);
}

void Sampler::KeepTopP(const float* logits, int32_t vocab_size, float max,
                       const SamplingParams& params) {
  ComputeWeights(logits, vocab_size, max, params.temperature, 0.0f, &weights_, &block_sum_);
  double total = 0;
  for (double sum : block_sum_) total += sum;
  const double mass = params.top_p * total;
  CollectAtLeast(logits, vocab_size, block_max_, top_k_.Bound(block_max_, kFirstGuess),
                 &candidates_);
  WeighCandidates(max, params.temperature);
  if (SumOf(candidates_.begin(), candidates_.end()) >= mass) {
    SelectMass(mass, 0, &candidates_);
  } else {
    KeepTopPOfFlat(logits, vocab_size, mass);
  }
}

// For a distribution so flat that a large part of the vocabulary is kept. A histogram of the
// weights finds where the mass is reached: what lies above that bucket is kept unsorted, only the
// bucket is searched. Its edges are the floats that share sign, exponent and four bits of the
// mantissa.
void Sampler::KeepTopPOfFlat(const float* logits, int32_t vocab_size, double mass) {
  histogram_.assign(kNumBuckets, 0.0);
  for (int32_t id = 0; id < vocab_size; ++id) histogram_[BucketOf(weights_[id])] += weights_[id];
  int32_t edge = kNumBuckets - 1;
  while (edge > 0 && histogram_[edge] < mass) mass -= histogram_[edge--];
  candidates_.clear();
  for (int32_t id = 0; id < vocab_size; ++id) {
    if (BucketOf(weights_[id]) > edge) candidates_.push_back({logits[id], weights_[id], id});
  }
  const size_t num_sure = candidates_.size();
  for (int32_t id = 0; id < vocab_size; ++id) {
    if (BucketOf(weights_[id]) == edge) candidates_.push_back({logits[id], weights_[id], id});
  }
  SelectMass(mass, num_sure, &candidates_);
}

void Sampler::WeighCandidates(float max, float temperature) {
  for (Candidate& candidate : candidates_) {
    candidate.weight = Weight(candidate.logit, max, temperature);
  }
}

}  // namespace cupola
