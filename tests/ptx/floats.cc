// Arithmetic of float32 and float64. Approximations of devices are computed in float32 by the C
// library, which is nearer to the truth than they are.
#include <cmath>

#include "logic.h"
#include "numbers.h"
#include "operations.h"

namespace ptx {
namespace {

template <class T>
T Add(T a, T b) {
  return a + b;
}
template <class T>
T Sub(T a, T b) {
  return a - b;
}
template <class T>
T Mul(T a, T b) {
  return a * b;
}
template <class T>
T Fma(T a, T b, T c) {
  return std::fma(a, b, c);
}
template <class T>
T Div(T a, T b) {
  return a / b;
}
template <class T>
T Reciprocal(T a) {
  return 1 / a;
}
template <class T>
T Root(T a) {
  return std::sqrt(a);
}
template <class T>
T Neg(T a) {
  return -a;
}
template <class T>
T Abs(T a) {
  return std::fabs(a);
}
template <class T>
T CopySign(T a, T b) {
  return std::copysign(b, a);
}
template <class T>
T Select(T a, T b, bool chosen) {
  return chosen ? a : b;
}

// Of a NaN and a number the number; -0 is less than 0.
template <class T>
T Min(T a, T b) {
  if (a < b || b != b) return a;
  if (b < a || a != a) return b;
  return std::signbit(a) ? a : b;
}
template <class T>
T Max(T a, T b) {
  if (a > b || b != b) return a;
  if (b > a || a != a) return b;
  return std::signbit(a) ? b : a;
}
template <auto F, class T>
T OrNan(T a, T b) {
  return a != a || b != b ? std::numeric_limits<T>::quiet_NaN() : F(a, b);
}

float Exp2(float a) { return std::exp2(a); }
float Log2(float a) { return std::log2(a); }
float InverseRoot(float a) { return 1 / std::sqrt(a); }
float Sine(float a) { return std::sin(a); }
float Cosine(float a) { return std::cos(a); }
float Tanh(float a) { return std::tanh(a); }

template <auto F, class Signature>
struct Flushing;
template <auto F, class D, class... S>
struct Flushing<F, D (*)(S...)> {
  template <class T>
  static T Through(T value) {
    if constexpr (std::is_same_v<T, float>) return Flush(value);
    return value;
  }
  static D Of(S... s) { return Through(F(Through(s)...)); }
};
template <auto F, class Signature>
struct Saturating;
template <auto F, class... S>
struct Saturating<F, float (*)(S...)> {
  static float Of(S... s) { return Saturate(F(s...)); }
};

// A function of float32 with what flushes and what does not; name: what comes before and behind
// `.ftz`.
template <auto F>
void Flushable(Table& t, const std::string& name, const std::string& type = ".f32") {
  t[name + type] = Each<F>();
  t[name + ".ftz" + type] = Each<Flushing<F, decltype(F)>::Of>();
}
template <auto F>
void Saturable(Table& t, const std::string& name) {
  Flushable<F>(t, name);
  Flushable<Saturating<F, decltype(F)>::Of>(t, name, ".sat.f32");
}

template <Round R>
float DirectedAdd(float a, float b) {
  return ToFloat<R>(AddToOdd(a, b));
}
template <Round R>
float DirectedSub(float a, float b) {
  return ToFloat<R>(AddToOdd(a, -static_cast<double>(b)));
}
template <Round R>
float DirectedMul(float a, float b) {
  return ToFloat<R>(static_cast<double>(a) * b);
}
template <Round R>
float DirectedFma(float a, float b, float c) {
  return ToFloat<R>(AddToOdd(static_cast<double>(a) * b, c));
}

template <Round R>
void AddDirected(Table& t, const std::string& mode) {
  Saturable<DirectedAdd<R>>(t, "add." + mode);
  Saturable<DirectedSub<R>>(t, "sub." + mode);
  Saturable<DirectedMul<R>>(t, "mul." + mode);
  Saturable<DirectedFma<R>>(t, "fma." + mode);
}

template <class T, int kRelation = 0>
void AddRelations(Table& t, const std::string& type) {
  const std::string name = std::string("setp.") + kRelationNames[kRelation];
  constexpr auto kHolds = Holds<T, kRelation>;
  Flushable<kHolds>(t, name, type);
  Flushable<AndAlso<kHolds, T>>(t, name + ".and", type);
  Flushable<OrElse<kHolds, T>>(t, name + ".or", type);
  Flushable<Unlike<kHolds, T>>(t, name + ".xor", type);
  if constexpr (kRelation < kNan) AddRelations<T, kRelation + 1>(t, type);
}

bool IsFinite(float a) { return std::isfinite(a); }
bool IsInfinite(float a) { return std::isinf(a); }
bool IsNan(float a) { return a != a; }

void AddDoubles(Table& t) {
  t["add.f64"] = t["add.rn.f64"] = Each<Add<double>>();
  t["sub.f64"] = t["sub.rn.f64"] = Each<Sub<double>>();
  t["mul.f64"] = t["mul.rn.f64"] = Each<Mul<double>>();
  t["fma.rn.f64"] = Each<Fma<double>>();
  t["div.rn.f64"] = Each<Div<double>>();
  t["rcp.rn.f64"] = Each<Reciprocal<double>>();
  t["sqrt.rn.f64"] = Each<Root<double>>();
  t["neg.f64"] = Each<Neg<double>>();
  t["abs.f64"] = Each<Abs<double>>();
  t["min.f64"] = Each<Min<double>>();
  t["max.f64"] = Each<Max<double>>();
  t["selp.f64"] = Each<Select<double>>();
  AddRelations<double>(t, ".f64");
}

}  // namespace

void AddFloats(Table* table) {
  Table& t = *table;
  for (const char* mode : {"", ".rn"}) {
    Saturable<Add<float>>(t, std::string("add") + mode);
    Saturable<Sub<float>>(t, std::string("sub") + mode);
    Saturable<Mul<float>>(t, std::string("mul") + mode);
  }
  Saturable<Fma<float>>(t, "fma.rn");
  AddDirected<Round::kZero>(t, "rz");
  AddDirected<Round::kDown>(t, "rm");
  AddDirected<Round::kUp>(t, "rp");
  for (const char* mode : {".rn", ".full", ".approx"})
    Flushable<Div<float>>(t, std::string("div") + mode);
  for (const char* mode : {".rn", ".approx"}) {
    Flushable<Reciprocal<float>>(t, std::string("rcp") + mode);
    Flushable<Root<float>>(t, std::string("sqrt") + mode);
  }
  Flushable<Exp2>(t, "ex2.approx");
  Flushable<Log2>(t, "lg2.approx");
  Flushable<InverseRoot>(t, "rsqrt.approx");
  Flushable<Sine>(t, "sin.approx");
  Flushable<Cosine>(t, "cos.approx");
  t["tanh.approx.f32"] = Each<Tanh>();
  Flushable<Neg<float>>(t, "neg");
  Flushable<Abs<float>>(t, "abs");
  Flushable<Min<float>>(t, "min");
  Flushable<Max<float>>(t, "max");
  Flushable<OrNan<Min<float>, float>>(t, "min", ".NaN.f32");
  Flushable<OrNan<Max<float>, float>>(t, "max", ".NaN.f32");
  t["copysign.f32"] = Each<CopySign<float>>();
  t["selp.f32"] = Each<Select<float>>();
  t["testp.finite.f32"] = Each<IsFinite>();
  t["testp.infinite.f32"] = Each<IsInfinite>();
  t["testp.notanumber.f32"] = Each<IsNan>();
  AddRelations<float>(t, ".f32");
  AddDoubles(t);
}

}  // namespace ptx
