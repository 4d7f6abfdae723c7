// The table of operations by name, and what makes a function of one lane's values an operation of a
// warp.
#ifndef CUPOLA_TESTS_PTX_OPERATIONS_H_
#define CUPOLA_TESTS_PTX_OPERATIONS_H_

#include <cstdint>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "warp.h"

namespace ptx {

struct Operation {
  Handler run = nullptr;
  std::vector<uint8_t> bytes;  // of each operand; 0: a predicate
  Flow flow = Flow::kNext;
  int members = -1;  // which operand names the lanes that execute it together
  uint16_t mode = 0;
};

using Table = std::unordered_map<std::string, Operation>;

// Every operation but branches, loads, stores and moves, by its whole name, such as "add.s32".
const Table& Operations();
void AddIntegers(Table* table);
void AddFloats(Table* table);
void AddHalves(Table* table);
void AddConversions(Table* table);
void AddExchanges(Table* table);
void AddMatrices(Table* table);
void AddCopies(Table* table);
void AddAtomics(Table* table);

// Loads and stores by their space, and moves by bytes; see `moves.cc`.
Handler LoadHandler(Space space, size_t bytes, bool wide_address);
Handler StoreHandler(Space space, size_t bytes, bool wide_address);
// A copy of each lane's value from one size of registers to another.
Handler ResizeHandler(size_t to, size_t from, bool is_signed);
// Operands: the vector, the whole; the bytes of an element and of the whole.
Handler PackHandler(size_t element, size_t whole);
Handler UnpackHandler(size_t element, size_t whole);

// ldmatrix (operands: results, address) and cp.async (to, from, bytes, [bytes read]), by the size
// of shared addresses.
Handler MatrixLoadHandler(bool wide_address);
Handler CopyHandler(bool wide_address);

template <class T>
constexpr uint8_t kBytes = std::is_same_v<T, bool> ? 0 : sizeof(T);

template <class T>
class Source {
 public:
  Source(Warp& warp, uint32_t place) : values_(warp.At<T>(place)) {}
  T operator[](int lane) const { return values_[lane]; }

 private:
  const T* values_;
};
template <>
class Source<bool> {
 public:
  Source(Warp& warp, uint32_t place) : values_(*warp.At<uint32_t>(place)) {}
  bool operator[](int lane) const { return values_ >> lane & 1; }

 private:
  uint32_t values_;
};

// d = F(a, b, ...) for every lane.
template <auto F, class D, class... S>
void Write(Warp& warp, uint32_t place, uint32_t mask, const Source<S>&... from) {
  if constexpr (std::is_same_v<D, bool>) {
    uint32_t found = 0;
    ForLanes(mask, [&](int lane) { found |= static_cast<uint32_t>(F(from[lane]...)) << lane; });
    uint32_t* to = warp.At<uint32_t>(place);
    *to = (*to & ~mask) | found;
  } else {
    D* to = warp.At<D>(place);
    if (mask == kAll) {
#pragma GCC ivdep
      for (int lane = 0; lane < kLanes; ++lane) to[lane] = F(from[lane]...);
    } else {
      for (; mask; mask &= mask - 1) to[__builtin_ctz(mask)] = F(from[__builtin_ctz(mask)]...);
    }
  }
}

template <auto F, class Signature>
struct Lifted;
template <auto F, class D, class... S>
struct Lifted<F, D (*)(S...)> {
  static void Run(Warp& warp, const Instruction& instruction, uint32_t mask) {
    RunAll(warp, instruction.operands, mask, std::index_sequence_for<S...>());
  }
  template <size_t... I>
  static void RunAll(Warp& warp, const uint32_t* operands, uint32_t mask,
                     std::index_sequence<I...>) {
    Write<F, D>(warp, operands[0], mask, Source<S>(warp, operands[I + 1])...);
  }
  static Operation Make() { return {Run, {kBytes<D>, kBytes<S>...}}; }
};

// The operation that applies a function of one lane's values.
template <auto F>
Operation Each() {
  return Lifted<F, decltype(F)>::Make();
}

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_OPERATIONS_H_
