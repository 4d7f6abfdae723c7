// Arithmetic of float16 and bfloat16, single and in pairs.
#include <cmath>

#include "logic.h"
#include "numbers.h"
#include "operations.h"

namespace ptx {
namespace {

template <class H>
H Add(H a, H b) {
  return H(float(a) + float(b));
}
template <class H>
H Sub(H a, H b) {
  return H(float(a) - float(b));
}
template <class H>
H Mul(H a, H b) {
  return H(float(a) * float(b));
}
template <class H>
H Fma(H a, H b, H c) {
  return H(AddToOdd(static_cast<double>(float(a)) * float(b), float(c)));
}
template <class H>
H Signed(uint16_t bits) {
  H found;
  found.bits = bits;
  return found;
}
template <class H>
H Neg(H a) {
  return Signed<H>(a.bits ^ 0x8000);
}
template <class H>
H Abs(H a) {
  return Signed<H>(a.bits & 0x7fff);
}
template <class H>
H Min(H a, H b) {
  const float x = a, y = b;
  return x < y || y != y || (x == y && std::signbit(x)) ? a : b;
}
template <class H>
H Max(H a, H b) {
  const float x = a, y = b;
  return x > y || y != y || (x == y && !std::signbit(x)) ? a : b;
}
template <class H>
bool IsNan(H a) {
  return float(a) != float(a);
}
template <auto F, class H>
H OrNan(H a, H b) {
  return IsNan(a) || IsNan(b) ? Signed<H>(0x7fff) : F(a, b);
}
// A NaN becomes a 0 by .sat, and stays one by .relu.
template <auto F, class H>
H Sat(H a, H b) {
  return H(Saturate(F(a, b)));
}
template <class H>
H SatFma(H a, H b, H c) {
  return H(Saturate(Fma(a, b, c)));
}
template <class H>
H ReluFma(H a, H b, H c) {
  const H found = Fma(a, b, c);
  return float(found) < 0 || found.bits == 0x8000 ? Signed<H>(0) : found;
}
template <class H>
H Exp2(H a) {
  return H(std::exp2(float(a)));
}
template <class H>
H Tanh(H a) {
  return H(std::tanh(float(a)));
}

template <class H, int kRelation>
bool HalvesHold(H a, H b) {
  return Holds<float, kRelation>(a, b);
}

template <auto F, class Signature>
struct Twice;
template <auto F, class H, class... S>
struct Twice<F, H (*)(S...)> {
  static Pair<H> Of(Pair<S>... s) { return {F(s.low...), F(s.high...)}; }
};

// An operation of single numbers and of pairs.
template <auto F>
void Both(Table& t, const std::string& name, const std::string& type) {
  t[name + "." + type] = Each<F>();
  t[name + "." + type + "x2"] = Each<Twice<F, decltype(F)>::Of>();
}

template <class H, int... kRelations>
void AddRelations(Table& t) {
  ((t[std::string("setp.") + kRelationNames[kRelations] + "." + H::kName] =
        Each<HalvesHold<H, kRelations>>()),
   ...);
}

template <class H>
void AddType(Table& t) {
  const std::string type = H::kName;
  for (const char* mode : {"", ".rn"}) {
    Both<Add<H>>(t, std::string("add") + mode, type);
    Both<Sub<H>>(t, std::string("sub") + mode, type);
    Both<Mul<H>>(t, std::string("mul") + mode, type);
    Both<Sat<Add<H>, H>>(t, std::string("add") + mode + ".sat", type);
    Both<Sat<Sub<H>, H>>(t, std::string("sub") + mode + ".sat", type);
    Both<Sat<Mul<H>, H>>(t, std::string("mul") + mode + ".sat", type);
  }
  Both<Fma<H>>(t, "fma.rn", type);
  Both<SatFma<H>>(t, "fma.rn.sat", type);
  Both<ReluFma<H>>(t, "fma.rn.relu", type);
  Both<Neg<H>>(t, "neg", type);
  Both<Abs<H>>(t, "abs", type);
  Both<Min<H>>(t, "min", type);
  Both<Max<H>>(t, "max", type);
  Both<OrNan<Min<H>, H>>(t, "min.NaN", type);
  Both<OrNan<Max<H>, H>>(t, "max.NaN", type);
  Both<Exp2<H>>(t, "ex2.approx", type);
  Both<Tanh<H>>(t, "tanh.approx", type);
  AddRelations<H, kEq, kNe, kLt, kLe, kGt, kGe, kNeu, kNan>(t);
}

}  // namespace

void AddHalves(Table* table) {
  AddType<F16>(*table);
  AddType<BF16>(*table);
}

}  // namespace ptx
