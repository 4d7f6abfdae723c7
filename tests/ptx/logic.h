// What the operations of several types of numbers have in common: bits, relations, and what `setp`
// does with one.
#ifndef CUPOLA_TESTS_PTX_LOGIC_H_
#define CUPOLA_TESTS_PTX_LOGIC_H_

namespace ptx {

template <class T>
T And(T a, T b) {
  return a & b;
}
template <class T>
T Or(T a, T b) {
  return a | b;
}
template <class T>
T Xor(T a, T b) {
  return static_cast<T>(a ^ b);
}

// Relations of floating point numbers by PTX's names; those with u also hold if one of the numbers
// is a NaN.
enum Relation { kEq, kNe, kLt, kLe, kGt, kGe, kEqu, kNeu, kLtu, kLeu, kGtu, kGeu, kNum, kNan };
inline const char* const kRelationNames[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                             "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};

template <class T, int kRelation>
bool Holds(T a, T b) {
  switch (kRelation) {
    case kEq:
      return a == b;
    case kNe:
      return a < b || a > b;
    case kLt:
      return a < b;
    case kLe:
      return a <= b;
    case kGt:
      return a > b;
    case kGe:
      return a >= b;
    case kEqu:
      return !(a < b || a > b);
    case kNeu:
      return a != b;
    case kLtu:
      return !(a >= b);
    case kLeu:
      return !(a > b);
    case kGtu:
      return !(a <= b);
    case kGeu:
      return !(a < b);
    case kNum:
      return a == a && b == b;
    default:
      return a != a || b != b;
  }
}

// A relation, joined with another predicate.
template <auto F, class T>
bool AndAlso(T a, T b, bool c) {
  return F(a, b) && c;
}
template <auto F, class T>
bool OrElse(T a, T b, bool c) {
  return F(a, b) || c;
}
template <auto F, class T>
bool Unlike(T a, T b, bool c) {
  return F(a, b) != c;
}

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_LOGIC_H_
