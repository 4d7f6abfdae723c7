#include "sampling/logits.h"

#include <algorithm>
#include <cstring>
#include <limits>

// A second version of the hot loops for AVX2, chosen when the library is loaded. Sanitizers cannot
// run before the resolvers do, so they get the plain version.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define CUPOLA_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CUPOLA_VECTOR_CLONES
#endif

namespace cupola {

namespace {

constexpr int32_t kLanes = 16;
constexpr float kLowest = std::numeric_limits<float>::lowest();

inline uint32_t BitsOf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

inline float FloatOf(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// exp(x) for x <= 0 by x = n ln 2 + r and a polynomial in r; 0 where x is below -87.
inline float ExpOfNegative(float x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float too_small = x < -87.0f ? 0.0f : 1.0f;
  x = x < -87.0f ? -87.0f : x;
  const float n = (x * kLog2E + kRound) - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691e-4f;
  p = p * r + 1.3981999e-3f;
  p = p * r + 8.3334519e-3f;
  p = p * r + 4.1665796e-2f;
  p = p * r + 1.6666665e-1f;
  p = p * r + 5.0000001e-1f;
  p = p * r * r + r + 1.0f;
  return too_small * p * FloatOf(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23);
}

// Largest value of one whole block; `*bad` collects a bit pattern that is all ones in the exponent
// (infinite or NaN).
CUPOLA_VECTOR_CLONES
float ScanBlock(const float* x, uint32_t* bad) {
  float lane_max[kLanes];
  uint32_t lane_bad[kLanes];
  for (int32_t k = 0; k < kLanes; ++k) {
    lane_max[k] = x[k];
    lane_bad[k] = 0;
  }
  for (int32_t i = 0; i < kLogitBlock; i += kLanes) {
    for (int32_t k = 0; k < kLanes; ++k) {
      const float value = x[i + k];
      lane_max[k] = value > lane_max[k] ? value : lane_max[k];
      lane_bad[k] |= (BitsOf(value) & 0x7F800000U) == 0x7F800000U ? 1U : 0U;
    }
  }
  float max = lane_max[0];
  for (int32_t k = 0; k < kLanes; ++k) {
    max = lane_max[k] > max ? lane_max[k] : max;
    *bad |= lane_bad[k];
  }
  return max;
}

CUPOLA_VECTOR_CLONES
double WeighBlock(const float* x, float max, float scale, float floor, float* weights) {
  float lane_sum[kLanes] = {};
  for (int32_t i = 0; i < kLogitBlock; i += kLanes) {
    for (int32_t k = 0; k < kLanes; ++k) {
      const float weight = ExpOfNegative((x[i + k] - max) * scale);
      weights[i + k] = weight < floor ? 0.0f : weight;
      lane_sum[k] += weights[i + k];
    }
  }
  double sum = 0;
  for (int32_t k = 0; k < kLanes; ++k) sum += lane_sum[k];
  return sum;
}

// The block at `begin`, or a copy of the row's tail in `padded`, filled up with the lowest float.
const float* WholeBlock(const float* logits, int32_t size, int32_t begin, float* padded) {
  if (begin + kLogitBlock <= size) return logits + begin;
  std::fill(padded, padded + kLogitBlock, kLowest);
  std::copy(logits + begin, logits + size, padded);
  return padded;
}

}  // namespace

bool ScanRow(const float* logits, int32_t size, std::vector<float>* block_max, float* max) {
  float padded[kLogitBlock];
  uint32_t bad = 0;
  block_max->clear();
  *max = kLowest;
  for (int32_t begin = 0; begin < size; begin += kLogitBlock) {
    block_max->push_back(ScanBlock(WholeBlock(logits, size, begin, padded), &bad));
    *max = std::max(*max, block_max->back());
  }
  return bad == 0;
}

int32_t FindFirst(const float* logits, int32_t size, float max) {
  return static_cast<int32_t>(std::find(logits, logits + size, max) - logits);
}

void ComputeWeights(const float* logits, int32_t size, float max, float temperature, float floor,
                    std::vector<float>* weights, std::vector<double>* block_sum) {
  const int32_t num_blocks = (size + kLogitBlock - 1) / kLogitBlock;
  weights->resize(static_cast<size_t>(num_blocks) * kLogitBlock);
  block_sum->resize(num_blocks);
  float padded[kLogitBlock];
  for (int32_t block = 0; block < num_blocks; ++block) {
    const int32_t begin = block * kLogitBlock;
    const float* x = WholeBlock(logits, size, begin, padded);
    (*block_sum)[block] = WeighBlock(x, max, 1.0f / temperature, floor, weights->data() + begin);
  }
}

float Weight(float logit, float max, float temperature) {
  return ExpOfNegative((logit - max) * (1.0f / temperature));
}

void CollectAtLeast(const float* logits, int32_t size, const std::vector<float>& block_max,
                    float bound, std::vector<Candidate>* candidates) {
  for (int32_t block = 0; block < static_cast<int32_t>(block_max.size()); ++block) {
    if (block_max[block] < bound) continue;
    const int32_t end = std::min(size, (block + 1) * kLogitBlock);
    for (int32_t id = block * kLogitBlock; id < end; ++id) {
      if (logits[id] >= bound) candidates->push_back({logits[id], 0.0f, id});
    }
  }
}

}  // namespace cupola
