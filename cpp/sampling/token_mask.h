// Which tokens may come next: one bit for each id of the vocabulary.
#ifndef CUPOLA_SAMPLING_TOKEN_MASK_H_
#define CUPOLA_SAMPLING_TOKEN_MASK_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sampling/processors.h"

namespace cupola {

constexpr int32_t kMaskBits = 32;  // of one word of a mask

using TokenMask = std::vector<uint32_t>;

inline bool Allows(const TokenMask& mask, int32_t token) {
  return (mask[token / kMaskBits] >> (token % kMaskBits) & 1) != 0;
}

// Bans every token of `row` [size] that the mask does not allow; ids beyond its end are none.
inline void ApplyMask(const TokenMask& mask, float* row, int32_t size) {
  for (int32_t begin = 0; begin < size; begin += kMaskBits) {
    const size_t index = static_cast<size_t>(begin) / kMaskBits;
    const uint32_t word = index < mask.size() ? mask[index] : 0;
    if (word == ~uint32_t{0}) continue;
    const int32_t count = std::min(kMaskBits, size - begin);
    for (int32_t i = 0; i < count; ++i) {
      row[begin + i] = (word >> i & 1) != 0 ? row[begin + i] : kBanned;
    }
  }
}

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_TOKEN_MASK_H_
