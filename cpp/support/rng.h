// Counter-based random numbers: a pure function of (seed, position).
//
// No state is kept between draws, so a request gets the same numbers whatever runs beside it,
// however its prompt was cut into chunks, and whether or not it was preempted.
#ifndef CUPOLA_SUPPORT_RNG_H_
#define CUPOLA_SUPPORT_RNG_H_

#include <cstdint>

namespace cupola {

// The finalizer of splitmix64: a bijection in which every input bit moves every output bit.
inline uint64_t Mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// A number in [0, 1) with 53 random bits.
inline double Uniform(uint64_t seed, uint64_t position) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ULL;
  const uint64_t stream = Mix64(seed + kGolden);
  const uint64_t bits = Mix64(stream + (position + 1) * kGolden);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_RNG_H_
