// atom and red, in any space of memory. One lock of the whole grid makes them atomic.
#include <algorithm>
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
T Least(T a, T b) {
  return std::min(a, b);
}
template <class T>
T Most(T a, T b) {
  return std::max(a, b);
}
template <class T>
T Exchange(T, T b) {
  return b;
}
template <class T>
T Swap(T a, T expected, T b) {
  return a == expected ? b : a;
}
uint32_t Increment(uint32_t a, uint32_t b) { return a >= b ? 0 : a + 1; }
uint32_t Decrement(uint32_t a, uint32_t b) { return a == 0 || a > b ? b : a - 1; }
F16 AddF16(F16 a, F16 b) { return F16(float(a) + float(b)); }
BF16 AddBF16(BF16 a, BF16 b) { return BF16(float(a) + float(b)); }

// Operands: what was there, the address, the value, [the other value of cas]. The mode: the space.
template <auto F, class T, class... More>
void Update(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint32_t* o = instruction.operands;
  std::lock_guard<std::mutex> lock(warp.grid().atomics);
  ForLanes(mask, [&](int lane) {
    const uint64_t address =
        warp.At<uint64_t>(o[1])[lane] + static_cast<uint64_t>(instruction.offset);
    auto* at = reinterpret_cast<T*>(warp.Memory(static_cast<Space>(instruction.mode), lane, address,
                                                sizeof(T), Access::kAtomic));
    const T before = *at;
    *at = F(before, warp.At<T>(o[2])[lane], warp.At<More>(o[3])[lane]...);
    warp.At<T>(o[0])[lane] = before;
  });
}

template <auto F, class T>
void Put(Table& t, const std::string& name) {
  t["atom." + name] = {Update<F, T>, {sizeof(T), 8, sizeof(T)}};
}
template <class T>
void AddInteger(Table& t, const std::string& type) {
  Put<Add<T>, T>(t, "add." + type);
  Put<Least<T>, T>(t, "min." + type);
  Put<Most<T>, T>(t, "max." + type);
}
template <class T>
void AddBits(Table& t, const std::string& type) {
  Put<And<T>, T>(t, "and." + type);
  Put<Or<T>, T>(t, "or." + type);
  Put<Xor<T>, T>(t, "xor." + type);
  Put<Exchange<T>, T>(t, "exch." + type);
  t["atom.cas." + type] = {Update<Swap<T>, T, T>, {sizeof(T), 8, sizeof(T), sizeof(T)}};
}

}  // namespace

void AddAtomics(Table* table) {
  Table& t = *table;
  AddInteger<uint32_t>(t, "u32");
  AddInteger<int32_t>(t, "s32");
  AddInteger<uint64_t>(t, "u64");
  AddInteger<int64_t>(t, "s64");
  AddBits<uint32_t>(t, "b32");
  AddBits<uint64_t>(t, "b64");
  Put<Increment, uint32_t>(t, "inc.u32");
  Put<Decrement, uint32_t>(t, "dec.u32");
  Put<Add<float>, float>(t, "add.f32");
  Put<Add<double>, double>(t, "add.f64");
  Put<AddF16, F16>(t, "add.noftz.f16");
  Put<AddBF16, BF16>(t, "add.noftz.bf16");
}

}  // namespace ptx
