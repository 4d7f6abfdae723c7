#include "engine/pace.h"

#include <algorithm>

namespace cupola {

void Pace::Observe(int32_t decode_rows, int32_t prefill_rows, double seconds) {
  const auto learn = [](double value, double* mean) {
    *mean = *mean == 0 ? value : *mean + kNewest * (value - *mean);
  };
  if (prefill_rows == 0) {
    if (decode_rows >= static_cast<int32_t>(decode_seconds_.size())) {
      decode_seconds_.resize(decode_rows + 1, 0);
    }
    learn(seconds, &decode_seconds_[decode_rows]);
  } else if (prefill_rows >= kFewest) {  // fewer cost more each, and would mislead
    // Learnt where it is used: beside decodes, a row costs what it adds to theirs.
    learn(std::max(0.0, seconds - DecodeSeconds(decode_rows)) / prefill_rows, &row_seconds_);
  }
}

int32_t Pace::PrefillRows(int32_t decode_rows, int32_t most) const {
  if (fixed_rows_ > 0) return std::min(fixed_rows_, most);
  if (decode_rows == 0) return most;
  const double alone = DecodeSeconds(decode_rows);
  if (alone == 0 || row_seconds_ == 0) return std::min(kUnmeasured, most);
  const double rows = std::min((kStretch - 1) * alone / row_seconds_, static_cast<double>(most));
  return std::min(std::max(static_cast<int32_t>(rows), kFewest), most);
}

// Of the nearest number of rows that was seen, if this one was not.
double Pace::DecodeSeconds(int32_t decode_rows) const {
  if (decode_rows == 0) return 0;
  const int32_t size = static_cast<int32_t>(decode_seconds_.size());
  for (int32_t distance = 0; distance <= std::max(size, decode_rows); ++distance) {
    for (int32_t rows : {decode_rows - distance, decode_rows + distance}) {
      if (rows > 0 && rows < size && decode_seconds_[rows] > 0) return decode_seconds_[rows];
    }
  }
  return 0;
}

}  // namespace cupola
