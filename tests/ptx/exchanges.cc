// What lanes of a warp tell each other: shfl, vote, match, redux, activemask.
#include <algorithm>

#include "operations.h"

namespace ptx {
namespace {

enum ShuffleMode : uint16_t { kUp, kDown, kButterfly, kIndex };

// Operands: d, whether the lane was in range, a, b, c (clamp and segment mask), members.
void Shuffle(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint32_t* o = instruction.operands;
  std::array<uint32_t, kLanes> values;
  std::copy_n(warp.At<uint32_t>(o[2]), kLanes, values.begin());
  const uint32_t *by = warp.At<uint32_t>(o[3]), *limits = warp.At<uint32_t>(o[4]);
  uint32_t* to = warp.At<uint32_t>(o[0]);
  uint32_t in_range = 0;
  std::array<uint32_t, kLanes> found;
  ForLanes(mask, [&](int lane) {
    const int b = static_cast<int>(by[lane] & 31), clamp = static_cast<int>(limits[lane] & 31);
    const int segment = static_cast<int>(limits[lane] >> 8 & 31);
    const int first = lane & segment, last = first | (clamp & ~segment);
    int from = lane;
    bool valid = true;
    switch (instruction.mode) {
      case kUp:
        from = lane - b, valid = from >= last;
        break;
      case kDown:
        from = lane + b, valid = from <= last;
        break;
      case kButterfly:
        from = lane ^ b, valid = from <= last;
        break;
      default:
        from = first | (b & ~segment), valid = from <= last;
    }
    if (!valid) from = lane;
    if (!(mask >> from & 1)) {
      throw Fault("lane " + std::to_string(lane) + " reads lane " + std::to_string(from) +
                  ", which takes no part");
    }
    found[lane] = values[from];
    in_range |= static_cast<uint32_t>(valid) << lane;
  });
  ForLanes(mask, [&](int lane) { to[lane] = found[lane]; });
  uint32_t* flags = warp.At<uint32_t>(o[1]);
  *flags = (*flags & ~mask) | in_range;
}

void SetFlags(Warp& warp, uint32_t place, uint32_t mask, bool value) {
  uint32_t* flags = warp.At<uint32_t>(place);
  *flags = (*flags & ~mask) | (value ? mask : 0);
}
uint32_t Asked(Warp& warp, const Instruction& instruction, uint32_t mask) {
  return *warp.At<uint32_t>(instruction.operands[1]) & mask;
}
void Any(Warp& warp, const Instruction& instruction, uint32_t mask) {
  SetFlags(warp, instruction.operands[0], mask, Asked(warp, instruction, mask) != 0);
}
void Every(Warp& warp, const Instruction& instruction, uint32_t mask) {
  SetFlags(warp, instruction.operands[0], mask, Asked(warp, instruction, mask) == mask);
}
void Uniform(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint32_t asked = Asked(warp, instruction, mask);
  SetFlags(warp, instruction.operands[0], mask, asked == 0 || asked == mask);
}

void SetAll(Warp& warp, uint32_t place, uint32_t mask, uint32_t value) {
  uint32_t* to = warp.At<uint32_t>(place);
  ForLanes(mask, [&](int lane) { to[lane] = value; });
}
void Ballot(Warp& warp, const Instruction& instruction, uint32_t mask) {
  SetAll(warp, instruction.operands[0], mask, Asked(warp, instruction, mask));
}
void Active(Warp& warp, const Instruction& instruction, uint32_t mask) {
  SetAll(warp, instruction.operands[0], mask, mask);
}

template <class T>
void MatchAny(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const T* values = warp.At<T>(instruction.operands[1]);
  std::array<uint32_t, kLanes> found{};
  ForLanes(mask, [&](int lane) {
    ForLanes(mask, [&](int other) {
      found[lane] |= static_cast<uint32_t>(values[lane] == values[other]) << other;
    });
  });
  uint32_t* to = warp.At<uint32_t>(instruction.operands[0]);
  ForLanes(mask, [&](int lane) { to[lane] = found[lane]; });
}

template <class T, class F>
void Reduce(Warp& warp, const Instruction& instruction, uint32_t mask, F combine) {
  const T* values = warp.At<T>(instruction.operands[1]);
  T total = values[__builtin_ctz(mask)];
  ForLanes(mask & (mask - 1), [&](int lane) { total = combine(total, values[lane]); });
  SetAll(warp, instruction.operands[0], mask, static_cast<uint32_t>(total));
}
template <class T>
void ReduceAdd(Warp& w, const Instruction& i, uint32_t mask) {
  Reduce<uint32_t>(w, i, mask, [](uint32_t a, uint32_t b) { return a + b; });
}
template <class T>
void ReduceMin(Warp& w, const Instruction& i, uint32_t mask) {
  Reduce<T>(w, i, mask, [](T a, T b) { return std::min(a, b); });
}
template <class T>
void ReduceMax(Warp& w, const Instruction& i, uint32_t mask) {
  Reduce<T>(w, i, mask, [](T a, T b) { return std::max(a, b); });
}
void ReduceAnd(Warp& w, const Instruction& i, uint32_t mask) {
  Reduce<uint32_t>(w, i, mask, [](uint32_t a, uint32_t b) { return a & b; });
}
void ReduceOr(Warp& w, const Instruction& i, uint32_t mask) {
  Reduce<uint32_t>(w, i, mask, [](uint32_t a, uint32_t b) { return a | b; });
}
void ReduceXor(Warp& w, const Instruction& i, uint32_t mask) {
  Reduce<uint32_t>(w, i, mask, [](uint32_t a, uint32_t b) { return a ^ b; });
}

// An operation whose third operand has the members.
Operation Together(Handler run, uint8_t result, uint8_t value) {
  return {run, {result, value, 4}, Flow::kTogether, 2};
}

}  // namespace

void AddExchanges(Table* table) {
  Table& t = *table;
  const char* const modes[] = {"up", "down", "bfly", "idx"};
  for (uint16_t mode = 0; mode < 4; ++mode) {
    t[std::string("shfl.sync.") + modes[mode] + ".b32"] = {
        Shuffle, {4, 0, 4, 4, 4, 4}, Flow::kTogether, 5, mode};
  }
  t["vote.sync.any.pred"] = Together(Any, 0, 0);
  t["vote.sync.all.pred"] = Together(Every, 0, 0);
  t["vote.sync.uni.pred"] = Together(Uniform, 0, 0);
  t["vote.sync.ballot.b32"] = Together(Ballot, 4, 0);
  t["match.any.sync.b32"] = Together(MatchAny<uint32_t>, 4, 4);
  t["match.any.sync.b64"] = Together(MatchAny<uint64_t>, 4, 8);
  t["activemask.b32"] = {Active, {4}};
  t["redux.sync.add.u32"] = t["redux.sync.add.s32"] = Together(ReduceAdd<uint32_t>, 4, 4);
  t["redux.sync.min.u32"] = Together(ReduceMin<uint32_t>, 4, 4);
  t["redux.sync.min.s32"] = Together(ReduceMin<int32_t>, 4, 4);
  t["redux.sync.max.u32"] = Together(ReduceMax<uint32_t>, 4, 4);
  t["redux.sync.max.s32"] = Together(ReduceMax<int32_t>, 4, 4);
  t["redux.sync.and.b32"] = Together(ReduceAnd, 4, 4);
  t["redux.sync.or.b32"] = Together(ReduceOr, 4, 4);
  t["redux.sync.xor.b32"] = Together(ReduceXor, 4, 4);
}

}  // namespace ptx
