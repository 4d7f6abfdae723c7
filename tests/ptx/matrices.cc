// mma.sync and ldmatrix. Of lane 4 g + t (PTX ISA, "Matrix fragments"; a word is two neighbouring
// numbers):
//   A of m16n8k16: rows g, g + 8 at inputs 2 t; both at inputs 2 t + 8    B: output g at inputs 2
//   t, and at 2 t + 8 A of m16n8k8: rows g, g + 8 at inputs 2 t                            B:
//   output g at inputs 2 t C and D: row g at outputs 2 t, 2 t + 1; row g + 8 there
// Sums are made in float32, in the order of inputs, before C is added; devices do not say how they
// round.
#include "numbers.h"
#include "operations.h"

namespace ptx {
namespace {

constexpr int kRows = 16, kOutputs = 8;

template <class H, int kInputs>
struct Factors {
  float a[kRows][kInputs], b[kInputs][kOutputs];

  Factors(Warp& warp, const uint32_t* o) {
    for (int word = 0; word < kInputs / 4; ++word) {
      const auto* pairs = warp.At<Pair<H>>(o[4 + word]);
      for (int lane = 0; lane < kLanes; ++lane) {
        float* to = &a[lane / 4 + 8 * (word & 1)][2 * (lane & 3) + 8 * (word >> 1)];
        to[0] = pairs[lane].low, to[1] = pairs[lane].high;
      }
    }
    for (int word = 0; word < kInputs / 8; ++word) {
      const auto* pairs = warp.At<Pair<H>>(o[4 + kInputs / 4 + word]);
      for (int lane = 0; lane < kLanes; ++lane) {
        const int input = 2 * (lane & 3) + 8 * word;
        b[input][lane / 4] = pairs[lane].low, b[input + 1][lane / 4] = pairs[lane].high;
      }
    }
  }
};

// Operands: 4 of D, then A, B, 4 of C.
template <class H, int kInputs>
void Multiply(Warp& warp, const Instruction& instruction, uint32_t) {
  const uint32_t* o = instruction.operands;
  const Factors<H, kInputs> factors(warp, o);
  float sums[kRows][kOutputs] = {};
  for (int row = 0; row < kRows; ++row) {
    for (int k = 0; k < kInputs; ++k) {
      for (int j = 0; j < kOutputs; ++j) sums[row][j] += factors.a[row][k] * factors.b[k][j];
    }
  }
  const int c = 4 + kInputs / 4 + kInputs / 8;
  for (int i = 0; i < 4; ++i) {
    const float* from = warp.At<float>(o[c + i]);
    float* to = warp.At<float>(o[i]);
    for (int lane = 0; lane < kLanes; ++lane) {
      to[lane] = from[lane] + sums[lane / 4 + 8 * (i >> 1)][2 * (lane & 3) + (i & 1)];
    }
  }
}

// Operands: a word of each matrix, the address of the row 8 m + i in lane 8 m + i. The mode:
// whether transposed.
template <class Address>
void LoadMatrices(Warp& warp, const Instruction& instruction, uint32_t) {
  const int count = instruction.count;
  const auto* addresses = warp.At<Address>(instruction.operands[count]);
  uint16_t found[4][8][8];
  for (int row = 0; row < 8 * count; ++row) {
    const uint8_t* from =
        warp.shared().At(addresses[row] + instruction.offset, 16, warp.index(), Access::kRead);
    std::memcpy(found[row / 8][row % 8], from, 16);
  }
  for (int matrix = 0; matrix < count; ++matrix) {
    auto* to = warp.At<uint32_t>(instruction.operands[matrix]);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int g = lane / 4, t = 2 * (lane & 3);
      const auto& m = found[matrix];
      const uint16_t low = instruction.mode ? m[t][g] : m[g][t],
                     high = instruction.mode ? m[t + 1][g] : m[g][t + 1];
      to[lane] = low | static_cast<uint32_t>(high) << 16;
    }
  }
}

template <class H, int kInputs>
void AddProduct(Table& t) {
  const std::string type = std::string(".") + H::kName;
  const std::string shape = "m16n8k" + std::to_string(kInputs);
  t["mma.sync.aligned." + shape + ".row.col.f32" + type + type + ".f32"] = {
      Multiply<H, kInputs>, std::vector<uint8_t>(8 + kInputs / 4 + kInputs / 8, 4),
      Flow::kTogether};
}

}  // namespace

void AddMatrices(Table* table) {
  AddProduct<F16, 16>(*table);
  AddProduct<BF16, 16>(*table);
  AddProduct<F16, 8>(*table);
  AddProduct<BF16, 8>(*table);
}

Handler MatrixLoadHandler(bool wide_address) {
  return wide_address ? LoadMatrices<uint64_t> : LoadMatrices<uint32_t>;
}

}  // namespace ptx
