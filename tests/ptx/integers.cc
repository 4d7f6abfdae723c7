// Arithmetic of integers, of bits and of predicates.
#include <algorithm>
#include <type_traits>

#include "logic.h"
#include "operations.h"

namespace ptx {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
using Wide = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

// Overflow wraps around: arithmetic is unsigned, and in at least 32 bits.
template <class T>
T Add(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
template <class T>
T Sub(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
template <class T>
T MulLow(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
template <class T>
T MulHigh(T a, T b) {
  return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> (8 * sizeof(T)));
}
template <class T>
Wide<T> MulWide(T a, T b) {
  return static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b);
}
template <class T>
T MadLow(T a, T b, T c) {
  return Add<T>(MulLow<T>(a, b), c);
}
template <class T>
T MadHigh(T a, T b, T c) {
  return Add<T>(MulHigh<T>(a, b), c);
}
template <class T>
Wide<T> MadWide(T a, T b, Wide<T> c) {
  return Add<Wide<T>>(MulWide<T>(a, b), c);
}
// What devices give for a zero is not defined; all ones, as they do.
template <class T>
T Div(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Sub<T>(0, a);
  return static_cast<T>(a / b);
}
template <class T>
T Rem(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
  return static_cast<T>(a % b);
}
template <class T>
T Min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
T Max(T a, T b) {
  return a > b ? a : b;
}
template <class T>
T Neg(T a) {
  return Sub<T>(0, a);
}
template <class T>
T Abs(T a) {
  return a < 0 ? Sub<T>(0, a) : a;
}
template <class T>
T Shr(T a, uint32_t by) {
  const uint32_t most = 8 * sizeof(T);
  if (by >= most) return std::is_signed_v<T> && a < 0 ? static_cast<T>(-1) : 0;
  return static_cast<T>(a >> by);
}
template <class T>
T Shl(T a, uint32_t by) {
  return by >= 8 * sizeof(T) ? 0 : static_cast<T>(static_cast<uint64_t>(a) << by);
}
template <class T>
T Not(T a) {
  return static_cast<T>(~a);
}
template <>
bool Not<bool>(bool a) {
  return !a;
}
template <class T>
T Same(T a) {
  return a;
}
template <class T>
T Select(T a, T b, bool chosen) {
  return chosen ? a : b;
}

template <class T>
bool Eq(T a, T b) {
  return a == b;
}
template <class T>
bool Ne(T a, T b) {
  return a != b;
}
template <class T>
bool Lt(T a, T b) {
  return a < b;
}
template <class T>
bool Le(T a, T b) {
  return a <= b;
}
template <class T>
bool Gt(T a, T b) {
  return a > b;
}
template <class T>
bool Ge(T a, T b) {
  return a >= b;
}

uint32_t Population(uint32_t a) { return static_cast<uint32_t>(__builtin_popcount(a)); }
uint32_t PopulationOf64(uint64_t a) { return static_cast<uint32_t>(__builtin_popcountll(a)); }
uint32_t LeadingZeros(uint32_t a) { return a ? static_cast<uint32_t>(__builtin_clz(a)) : 32; }
uint32_t LeadingZerosOf64(uint64_t a) { return a ? static_cast<uint32_t>(__builtin_clzll(a)) : 64; }
uint32_t Reverse(uint32_t a) {
  a = (a & 0x55555555) << 1 | (a >> 1 & 0x55555555);
  a = (a & 0x33333333) << 2 | (a >> 2 & 0x33333333);
  a = (a & 0x0f0f0f0f) << 4 | (a >> 4 & 0x0f0f0f0f);
  return __builtin_bswap32(a);
}
uint32_t HighestOf(uint32_t a) { return a ? 31 - LeadingZeros(a) : kAll; }
uint32_t HighestOfSigned(int32_t a) { return HighestOf(static_cast<uint32_t>(a < 0 ? ~a : a)); }

template <class T>
T Insert(T a, T b, uint32_t position, uint32_t length) {
  position &= 255, length &= 255;
  const uint32_t most = 8 * sizeof(T);
  if (length == 0 || position >= most) return b;
  const T ones = static_cast<T>(length >= most ? ~T{0} : (T{1} << length) - 1);
  return (b & ~static_cast<T>(ones << position)) | static_cast<T>((a & ones) << position);
}
template <class T>
T Extract(T a, uint32_t position, uint32_t length) {
  position &= 255, length &= 255;
  constexpr uint32_t kMost = 8 * sizeof(T);
  if (length == 0) return 0;
  const uint32_t top = std::min(position + length - 1, kMost - 1);
  const bool negative = std::is_signed_v<T> && (a >> top & 1);
  Unsigned<T> found = position >= kMost ? 0 : static_cast<Unsigned<T>>(a) >> position;
  const uint32_t kept = position >= kMost ? 0 : top - position + 1;
  const Unsigned<T> ones = kept >= kMost ? ~Unsigned<T>{0} : (Unsigned<T>{1} << kept) - 1;
  found &= ones;
  return static_cast<T>(negative ? found | ~ones : found);
}

uint32_t Permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t found = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t chosen = selector >> (4 * i) & 15;
    uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (chosen & 7))) & 255;
    if (chosen & 8) byte = byte & 128 ? 255 : 0;
    found |= byte << (8 * i);
  }
  return found;
}
uint32_t Lookup(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t found = 0;
  for (unsigned i = 0; i < 8; ++i) {
    if (table >> i & 1) found |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  }
  return found;
}
template <bool kLeft, bool kWrap>
uint32_t Funnel(uint32_t a, uint32_t b, uint32_t by) {
  by = kWrap ? by & 31 : std::min(by, 32u);
  const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  return static_cast<uint32_t>(kLeft ? both << by >> 32 : both >> by);
}
template <class A, class B>
int32_t Dot4(uint32_t a, uint32_t b, int32_t c) {
  auto sum = static_cast<uint32_t>(c);
  for (int i = 0; i < 4; ++i) {
    sum += static_cast<uint32_t>(static_cast<A>(a >> (8 * i)) * static_cast<B>(b >> (8 * i)));
  }
  return static_cast<int32_t>(sum);
}

template <auto F, class T>
void AddComparison(Table& t, const std::string& relation, const std::string& type) {
  t["setp." + relation + "." + type] = Each<F>();
  t["setp." + relation + ".and." + type] = Each<AndAlso<F, T>>();
  t["setp." + relation + ".or." + type] = Each<OrElse<F, T>>();
  t["setp." + relation + ".xor." + type] = Each<Unlike<F, T>>();
}

template <class T>
void AddType(Table& t, const std::string& type) {
  t["add." + type] = Each<Add<T>>();
  t["sub." + type] = Each<Sub<T>>();
  t["mul.lo." + type] = Each<MulLow<T>>();
  t["mul.hi." + type] = Each<MulHigh<T>>();
  t["mad.lo." + type] = Each<MadLow<T>>();
  t["mad.hi." + type] = Each<MadHigh<T>>();
  t["div." + type] = Each<Div<T>>();
  t["rem." + type] = Each<Rem<T>>();
  t["min." + type] = Each<Min<T>>();
  t["max." + type] = Each<Max<T>>();
  t["shr." + type] = Each<Shr<T>>();
  t["selp." + type] = Each<Select<T>>();
  if constexpr (sizeof(T) < 8) {
    t["mul.wide." + type] = Each<MulWide<T>>();
    t["mad.wide." + type] = Each<MadWide<T>>();
  }
  if constexpr (sizeof(T) > 2) t["bfe." + type] = Each<Extract<T>>();
  if constexpr (std::is_signed_v<T>) {
    t["neg." + type] = Each<Neg<T>>();
    t["abs." + type] = Each<Abs<T>>();
  }
  AddComparison<Eq<T>, T>(t, "eq", type);
  AddComparison<Ne<T>, T>(t, "ne", type);
  AddComparison<Lt<T>, T>(t, "lt", type);
  AddComparison<Le<T>, T>(t, "le", type);
  AddComparison<Gt<T>, T>(t, "gt", type);
  AddComparison<Ge<T>, T>(t, "ge", type);
  if constexpr (std::is_unsigned_v<T>) {
    AddComparison<Lt<T>, T>(t, "lo", type);
    AddComparison<Le<T>, T>(t, "ls", type);
    AddComparison<Gt<T>, T>(t, "hi", type);
    AddComparison<Ge<T>, T>(t, "hs", type);
  }
}

template <class T>
void AddBits(Table& t, const std::string& type) {
  t["and." + type] = Each<And<T>>();
  t["or." + type] = Each<Or<T>>();
  t["xor." + type] = Each<Xor<T>>();
  t["not." + type] = Each<Not<T>>();
  if constexpr (!std::is_same_v<T, bool>) {
    t["shl." + type] = Each<Shl<T>>();
    t["shr." + type] = Each<Shr<T>>();
    t["selp." + type] = Each<Select<T>>();
    AddComparison<Eq<T>, T>(t, "eq", type);
    AddComparison<Ne<T>, T>(t, "ne", type);
    for (const char* kind : {"b", "u", "s", "f"})
      t["mov." + (kind + type.substr(1))] = Each<Same<T>>();
  }
}

}  // namespace

void AddIntegers(Table* table) {
  Table& t = *table;
  AddType<uint16_t>(t, "u16");
  AddType<int16_t>(t, "s16");
  AddType<uint32_t>(t, "u32");
  AddType<int32_t>(t, "s32");
  AddType<uint64_t>(t, "u64");
  AddType<int64_t>(t, "s64");
  AddBits<uint16_t>(t, "b16");
  AddBits<uint32_t>(t, "b32");
  AddBits<uint64_t>(t, "b64");
  AddBits<bool>(t, "pred");
  t["mov.pred"] = Each<Same<bool>>();
  t["popc.b32"] = Each<Population>();
  t["popc.b64"] = Each<PopulationOf64>();
  t["clz.b32"] = Each<LeadingZeros>();
  t["clz.b64"] = Each<LeadingZerosOf64>();
  t["brev.b32"] = Each<Reverse>();
  t["bfind.u32"] = Each<HighestOf>();
  t["bfind.s32"] = Each<HighestOfSigned>();
  t["bfi.b32"] = Each<Insert<uint32_t>>();
  t["bfi.b64"] = Each<Insert<uint64_t>>();
  t["prmt.b32"] = Each<Permute>();
  t["lop3.b32"] = Each<Lookup>();
  t["shf.l.wrap.b32"] = Each<Funnel<true, true>>();
  t["shf.r.wrap.b32"] = Each<Funnel<false, true>>();
  t["shf.l.clamp.b32"] = Each<Funnel<true, false>>();
  t["shf.r.clamp.b32"] = Each<Funnel<false, false>>();
  t["dp4a.u32.u32"] = Each<Dot4<uint8_t, uint8_t>>();
  t["dp4a.s32.s32"] = Each<Dot4<int8_t, int8_t>>();
  t["dp4a.u32.s32"] = Each<Dot4<uint8_t, int8_t>>();
  t["dp4a.s32.u32"] = Each<Dot4<int8_t, uint8_t>>();
}

}  // namespace ptx
