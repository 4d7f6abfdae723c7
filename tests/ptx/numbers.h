// Numbers of 16 bits, and rounding as PTX defines it. Everything is rounded once: a sum or product
// of two numbers of 16 bits is exact enough in float32 that a second rounding changes nothing, a
// fused one is rounded to odd in float64 first.
#ifndef CUPOLA_TESTS_PTX_NUMBERS_H_
#define CUPOLA_TESTS_PTX_NUMBERS_H_

#ifdef __F16C__
#include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace ptx {

template <class To, class From>
To Bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// A float64 of which the last bit says whether anything was lost, so that it can be rounded again.
inline double ToOdd(double sum, double lost) {
  if (lost == 0 || !std::isfinite(sum) || (Bits<uint64_t>(sum) & 1)) return sum;
  return std::nextafter(sum, lost > 0 ? HUGE_VAL : -HUGE_VAL);
}
// a + b, by Knuth's exact sum.
inline double AddToOdd(double a, double b) {
  const double sum = a + b, other = sum - a;
  return ToOdd(sum, (a - (sum - other)) + (b - other));
}

// A float64 to the float32 that is rounded to odd.
inline float ToOddFloat(double value) {
  const auto rounded = static_cast<float>(value);
  if (!std::isfinite(value) || rounded == value || (Bits<uint32_t>(rounded) & 1)) return rounded;
  return std::nextafterf(rounded, value > rounded ? HUGE_VALF : -HUGE_VALF);
}

struct F16 {
  static constexpr const char* kName = "f16";
  uint16_t bits;
  F16() = default;
  explicit F16(double value) : F16(ToOddFloat(value)) {}
#ifdef __F16C__
  explicit F16(float value) : bits(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT)) {}
  operator float() const { return _cvtsh_ss(bits); }
#else
  explicit F16(float value) : bits(Bits<uint16_t>(static_cast<_Float16>(value))) {}
  operator float() const { return static_cast<float>(Bits<_Float16>(bits)); }
#endif
};

struct BF16 {
  static constexpr const char* kName = "bf16";
  uint16_t bits;
  BF16() = default;
  explicit BF16(float value) {
    const uint32_t code = Bits<uint32_t>(value);
    bits =
        value != value ? 0x7fff : static_cast<uint16_t>((code + 0x7fff + ((code >> 16) & 1)) >> 16);
  }
  explicit BF16(double value) : BF16(ToOddFloat(value)) {}
  operator float() const { return Bits<float>(static_cast<uint32_t>(bits) << 16); }
};

template <class H>
struct Pair {
  H low, high;
};

// Subnormal numbers become zeros of their sign.
inline float Flush(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}
// To [0, 1]; a NaN to 0.
inline float Saturate(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

enum class Round { kNearest, kZero, kDown, kUp };

// A float64 that was rounded to odd, to float32.
template <Round R>
float ToFloat(double value) {
  const float nearest = static_cast<float>(value);
  if (R == Round::kNearest || nearest == value || !std::isfinite(value)) return nearest;
  const bool up = R == Round::kUp || (R == Round::kZero && value < 0);
  if (up) return nearest < value ? std::nextafterf(nearest, HUGE_VALF) : nearest;
  return nearest > value ? std::nextafterf(nearest, -HUGE_VALF) : nearest;
}

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_NUMBERS_H_
