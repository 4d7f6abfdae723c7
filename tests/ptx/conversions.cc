// cvt: between numbers of all kinds, with the roundings that PTX has for each.
#include <cmath>
#include <limits>

#include "numbers.h"
#include "operations.h"

namespace ptx {
namespace {

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, F16> || std::is_same_v<T, BF16>;
template <class T>
constexpr bool kIsFloat = kIsHalf<T> || std::is_floating_point_v<T>;

template <class S>
auto Widened(S value) {
  if constexpr (kIsHalf<S>) {
    return float(value);
  } else {
    return value;
  }
}

template <class D, class S>
D Wrap(S value) {
  return static_cast<D>(value);
}
template <class D, class S>
D Clamp(S value) {
  const __int128 wide = value, least = std::numeric_limits<D>::min(),
                 most = std::numeric_limits<D>::max();
  return static_cast<D>(wide < least ? least : wide > most ? most : wide);
}

template <Round R, class T>
T Whole(T value) {
  if constexpr (R == Round::kNearest) return std::nearbyint(value);
  if constexpr (R == Round::kZero) return std::trunc(value);
  if constexpr (R == Round::kDown) return std::floor(value);
  return std::ceil(value);
}

// To an integer: what is too large becomes the largest, a NaN 0.
template <class D, class S, Round R>
D ToInteger(S value) {
  const auto whole = Whole<R>(Widened(value));
  if (whole != whole) return 0;
  if (whole < static_cast<double>(std::numeric_limits<D>::min()))
    return std::numeric_limits<D>::min();
  if (whole >= std::ldexp(1.0, std::numeric_limits<D>::digits))
    return std::numeric_limits<D>::max();
  return static_cast<D>(whole);
}

template <class D, class S>
D Nearest(S value) {
  if constexpr (kIsHalf<D> && std::is_integral_v<S>) {
    // An integer of 64 bits by a float64 that is rounded to odd.
    const double nearest = static_cast<double>(value);
    const __int128 lost = static_cast<__int128>(value) - static_cast<__int128>(nearest);
    return D(ToOdd(nearest, static_cast<double>(lost)));
  } else {
    return static_cast<D>(Widened(value));
  }
}
// Towards a side, of float32 from float64 or integers (which float64 holds, or to odd).
template <class S, Round R>
float Directed(S value) {
  const double nearest = static_cast<double>(value);
  if constexpr (std::is_integral_v<S>) {
    const __int128 lost = static_cast<__int128>(value) - static_cast<__int128>(nearest);
    return ToFloat<R>(ToOdd(nearest, static_cast<double>(lost)));
  }
  return ToFloat<R>(nearest);
}
template <class D, class S, Round R>
D WholeFloat(S value) {
  return static_cast<D>(Whole<R>(Widened(value)));
}
template <class D, class S>
D Sat(S value) {
  return D(Saturate(static_cast<float>(Widened(value))));
}
template <class D, class S>
D Relu(S value) {
  const float wide = Widened(value);
  return D(wide <= 0 ? 0.0f : wide);
}
template <class D>
D FlushedNearest(float value) {
  return D(Flush(value));
}
template <class D>
D FlushedWhole(float value) {
  return ToInteger<D, float, Round::kZero>(Flush(value));
}
// float32 to 16 bits towards 0.
template <class H>
H Truncated(float value) {
  H found(value);
  if (value == value && std::fabs(float(found)) > std::fabs(value)) --found.bits;
  return found;
}
// The first operand goes to the high half.
template <class H>
Pair<H> Packed(float high, float low) {
  return {H(low), H(high)};
}
template <class H>
Pair<H> PackedRelu(float high, float low) {
  return {Relu<H>(low), Relu<H>(high)};
}
template <class H>
Pair<H> PackedZero(float high, float low) {
  return {Truncated<H>(low), Truncated<H>(high)};
}

template <class D, class S>
void AddPair(Table& t, const std::string& d, const std::string& s) {
  const std::string types = "." + d + "." + s;
  if constexpr (std::is_integral_v<D> && std::is_integral_v<S>) {
    t["cvt" + types] = Each<Wrap<D, S>>();
    t["cvt.sat" + types] = Each<Clamp<D, S>>();
  } else if constexpr (std::is_integral_v<D>) {
    t["cvt.rni" + types] = Each<ToInteger<D, S, Round::kNearest>>();
    t["cvt.rzi" + types] = Each<ToInteger<D, S, Round::kZero>>();
    t["cvt.rmi" + types] = Each<ToInteger<D, S, Round::kDown>>();
    t["cvt.rpi" + types] = Each<ToInteger<D, S, Round::kUp>>();
  } else {
    constexpr bool kExact = kIsFloat<S> && sizeof(D) >= sizeof(S);
    t[(kExact ? "cvt" : "cvt.rn") + types] = Each<Nearest<D, S>>();
    if constexpr (kIsFloat<S>) t[(kExact ? "cvt.sat" : "cvt.rn.sat") + types] = Each<Sat<D, S>>();
  }
}

template <class D, class S>
void AddWhole(Table& t, const std::string& types) {
  t["cvt.rni" + types] = Each<WholeFloat<D, S, Round::kNearest>>();
  t["cvt.rzi" + types] = Each<WholeFloat<D, S, Round::kZero>>();
  t["cvt.rmi" + types] = Each<WholeFloat<D, S, Round::kDown>>();
  t["cvt.rpi" + types] = Each<WholeFloat<D, S, Round::kUp>>();
}

template <class S>
void AddDirected(Table& t, const std::string& s) {
  t["cvt.rz.f32." + s] = Each<Directed<S, Round::kZero>>();
  t["cvt.rm.f32." + s] = Each<Directed<S, Round::kDown>>();
  t["cvt.rp.f32." + s] = Each<Directed<S, Round::kUp>>();
}

template <class S>
void AddFrom(Table& t, const std::string& s) {
  AddPair<uint8_t, S>(t, "u8", s);
  AddPair<int8_t, S>(t, "s8", s);
  AddPair<uint16_t, S>(t, "u16", s);
  AddPair<int16_t, S>(t, "s16", s);
  AddPair<uint32_t, S>(t, "u32", s);
  AddPair<int32_t, S>(t, "s32", s);
  AddPair<uint64_t, S>(t, "u64", s);
  AddPair<int64_t, S>(t, "s64", s);
  AddPair<F16, S>(t, "f16", s);
  AddPair<BF16, S>(t, "bf16", s);
  AddPair<float, S>(t, "f32", s);
  AddPair<double, S>(t, "f64", s);
}

template <class H>
void AddPacked(Table& t) {
  const std::string type = H::kName;
  t["cvt.rn." + type + "x2.f32"] = Each<Packed<H>>();
  t["cvt.rn.relu." + type + "x2.f32"] = Each<PackedRelu<H>>();
  t["cvt.rz." + type + "x2.f32"] = Each<PackedZero<H>>();
  t["cvt.rn.relu." + type + ".f32"] = Each<Relu<H, float>>();
  t["cvt.rz." + type + ".f32"] = Each<Truncated<H>>();
  t["cvt.rn.ftz." + type + ".f32"] = Each<FlushedNearest<H>>();
}

}  // namespace

void AddConversions(Table* table) {
  Table& t = *table;
  AddFrom<uint8_t>(t, "u8");
  AddFrom<int8_t>(t, "s8");
  AddFrom<uint16_t>(t, "u16");
  AddFrom<int16_t>(t, "s16");
  AddFrom<uint32_t>(t, "u32");
  AddFrom<int32_t>(t, "s32");
  AddFrom<uint64_t>(t, "u64");
  AddFrom<int64_t>(t, "s64");
  AddFrom<F16>(t, "f16");
  AddFrom<BF16>(t, "bf16");
  AddFrom<float>(t, "f32");
  AddFrom<double>(t, "f64");
  AddWhole<float, float>(t, ".f32.f32");
  AddWhole<double, double>(t, ".f64.f64");
  AddWhole<F16, F16>(t, ".f16.f16");
  AddDirected<uint32_t>(t, "u32");
  AddDirected<int32_t>(t, "s32");
  AddDirected<uint64_t>(t, "u64");
  AddDirected<int64_t>(t, "s64");
  AddDirected<double>(t, "f64");
  AddPacked<F16>(t);
  AddPacked<BF16>(t);
  t["cvt.ftz.f32.f32"] = Each<FlushedNearest<float>>();
  t["cvt.rzi.ftz.s32.f32"] = Each<FlushedWhole<int32_t>>();
  t["cvt.rzi.ftz.u32.f32"] = Each<FlushedWhole<uint32_t>>();
}

}  // namespace ptx
