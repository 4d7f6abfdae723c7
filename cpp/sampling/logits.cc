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

constexpr int32_t kLanes = 8;
constexpr float kLowest = std::numeric_limits<float>::lowest();

// Vectors of the compiler (GCC and Clang): as wide as AVX2, cut in two on narrower machines.
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

#define CUPOLA_INLINE inline __attribute__((always_inline))

CUPOLA_INLINE void Load(const float* from, Floats* x) { std::memcpy(x, from, sizeof(*x)); }

// exp(x) for x <= 0 by x = n ln 2 + r and a polynomial in r; 0 where x is below -87.
CUPOLA_INLINE void ExpOfNegative(Floats* value) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Floats lowest = Floats{} - 87.0f;
  const Ints too_small = *value < lowest;
  const Floats x = too_small ? lowest : *value;
  const Floats n = (x * kLog2E + kRound) - kRound;
  const Floats r = (x - n * kLn2High) - n * kLn2Low;
  Floats p = r * 1.9875691e-4f + 1.3981999e-3f;
  p = p * r + 8.3334519e-3f;
  p = p * r + 4.1665796e-2f;
  p = p * r + 1.6666665e-1f;
  p = p * r + 5.0000001e-1f;
  p = p * r * r + r + 1.0f;
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  *value = too_small ? Floats{} : p * (Floats)exponent;
}

// The largest value of each of `num_blocks` whole blocks. Not zero if any value is NaN or infinite,
// that is, has all bits of its exponent set.
CUPOLA_VECTOR_CLONES
int32_t ScanBlocks(const float* x, int32_t num_blocks, float* block_max) {
  constexpr int32_t kExponent = 0x7F800000;
  Ints bad = {};
  for (int32_t block = 0; block < num_blocks; ++block, x += kLogitBlock) {
    Floats max;
    Load(x, &max);
    for (int32_t i = 0; i < kLogitBlock; i += kLanes) {
      Floats value;
      Load(x + i, &value);
      bad |= ((Ints)value & kExponent) == kExponent;
      max = value > max ? value : max;
    }
    float largest = max[0];
    for (int32_t k = 1; k < kLanes; ++k) largest = max[k] > largest ? max[k] : largest;
    block_max[block] = largest;
  }
  int32_t any = 0;
  for (int32_t k = 0; k < kLanes; ++k) any |= bad[k];
  return any;
}

CUPOLA_VECTOR_CLONES
void WeighBlocks(const float* x, int32_t num_blocks, float max, float scale, float floor,
                 float* weights, double* block_sum) {
  const Floats floors = Floats{} + floor;
  for (int32_t block = 0; block < num_blocks; ++block) {
    Floats sum = {};
    for (int32_t i = 0; i < kLogitBlock; i += kLanes, x += kLanes, weights += kLanes) {
      Floats weight;
      Load(x, &weight);
      weight = (weight - max) * scale;
      ExpOfNegative(&weight);
      weight = weight < floors ? Floats{} : weight;
      std::memcpy(weights, &weight, sizeof(weight));
      sum += weight;
    }
    double total = 0;
    for (int32_t k = 0; k < kLanes; ++k) total += sum[k];
    block_sum[block] = total;
  }
}

CUPOLA_VECTOR_CLONES
double SumBlocks(const float* x, int32_t num_blocks, float max) {
  double total = 0;
  for (int32_t block = 0; block < num_blocks; ++block) {
    Floats sum = {};
    for (int32_t i = 0; i < kLogitBlock; i += kLanes, x += kLanes) {
      Floats weight;
      Load(x, &weight);
      weight -= max;
      ExpOfNegative(&weight);
      sum += weight;
    }
    for (int32_t k = 0; k < kLanes; ++k) total += sum[k];
  }
  return total;
}

CUPOLA_VECTOR_CLONES
int32_t CountAbove(const float* x, int32_t size, float bound) {
  int32_t count = 0;
  for (int32_t i = 0; i < size; ++i) count += x[i] > bound;
  return count;
}

// The last, partial block of a row, filled up with the lowest float.
void PadTail(const float* logits, int32_t size, float* padded) {
  std::fill(padded, padded + kLogitBlock, kLowest);
  std::copy(logits + size / kLogitBlock * kLogitBlock, logits + size, padded);
}

int32_t NumBlocks(int32_t size) { return (size + kLogitBlock - 1) / kLogitBlock; }

}  // namespace

bool ScanRow(const float* logits, int32_t size, std::vector<float>* block_max, float* max) {
  const int32_t whole = size / kLogitBlock;
  block_max->resize(NumBlocks(size));
  int32_t bad = ScanBlocks(logits, whole, block_max->data());
  if (size % kLogitBlock != 0) {
    float padded[kLogitBlock];
    PadTail(logits, size, padded);
    bad |= ScanBlocks(padded, 1, block_max->data() + whole);
  }
  *max = *std::max_element(block_max->begin(), block_max->end());
  return bad == 0;
}

int32_t FindFirst(const float* logits, int32_t size, const std::vector<float>& block_max,
                  float max) {
  const auto block = std::find(block_max.begin(), block_max.end(), max) - block_max.begin();
  const float* begin = logits + block * kLogitBlock;
  return static_cast<int32_t>(std::find(begin, logits + size, max) - logits);
}

void ComputeWeights(const float* logits, int32_t size, float max, float temperature, float floor,
                    std::vector<float>* weights, std::vector<double>* block_sum) {
  const int32_t whole = size / kLogitBlock;
  const float scale = 1.0f / temperature;
  weights->resize(static_cast<size_t>(NumBlocks(size)) * kLogitBlock);
  block_sum->resize(NumBlocks(size));
  WeighBlocks(logits, whole, max, scale, floor, weights->data(), block_sum->data());
  if (size % kLogitBlock != 0) {
    float padded[kLogitBlock];
    PadTail(logits, size, padded);
    WeighBlocks(padded, 1, max, scale, floor, weights->data() + whole * kLogitBlock,
                block_sum->data() + whole);
  }
}

float Weight(float logit, float max, float temperature) {
  Floats weight = Floats{} + (logit - max) * (1.0f / temperature);
  ExpOfNegative(&weight);
  return weight[0];
}

double SumOfExp(const float* logits, int32_t size, float max) {
  const int32_t whole = size / kLogitBlock;
  double sum = SumBlocks(logits, whole, max);
  if (size % kLogitBlock != 0) {
    float padded[kLogitBlock];
    PadTail(logits, size, padded);
    sum += SumBlocks(padded, 1, max);
  }
  return sum;
}

int32_t RankOf(const float* logits, int32_t size, int32_t id) {
  const auto equals = std::count(logits, logits + id, logits[id]);
  return 1 + CountAbove(logits, size, logits[id]) + static_cast<int32_t>(equals);
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
