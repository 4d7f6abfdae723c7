// How many rows of prompts a step may read while others generate: learnt from how long steps took.
//
// A step with prompts should take at most kStretch times what it takes without: that bounds the
// time between the tokens of a stream. A prompt then gets a share of 1 - 1 / kStretch of the time
// at least, so that beside streams it takes at most kStretch / (kStretch - 1) times as long as
// alone, and somewhat longer still, because short chunks are read at a lower speed. One cannot have
// both small. Measured over HTTP, 4,096 tokens among 8 streams: with 3.1 the slowest of a hundred
// gaps grew 1.8 times and the prompt took 2.7 times as long; so there was room.
//
// It knows no clock: seconds are told to it. No result depends on it, only when it comes.
#ifndef CUPOLA_ENGINE_PACE_H_
#define CUPOLA_ENGINE_PACE_H_

#include <cstdint>
#include <vector>

namespace cupola {

class Pace {
 public:
  // fixed_rows > 0: always that many, whatever it takes.
  explicit Pace(int32_t fixed_rows) : fixed_rows_(fixed_rows) {}

  // A step read so many rows of prompts, beside so many that generate.
  void Observe(int32_t decode_rows, int32_t prefill_rows, double seconds);
  // The most rows of prompts for the next step, of which `most` are possible. At least one.
  int32_t PrefillRows(int32_t decode_rows, int32_t most) const;

 private:
  static constexpr double kStretch = 5.0;
  static constexpr double kNewest = 0.2;  // weight of the newest step in the running means
  static constexpr int32_t kFewest = 8;   // rows that are worth a place in a step
  static constexpr int32_t kUnmeasured = 64;

  double DecodeSeconds(int32_t decode_rows) const;

  const int32_t fixed_rows_;
  // Seconds of a step that only generates, for each number of rows; 0: not seen yet.
  std::vector<double> decode_seconds_;
  double row_seconds_ = 0;  // and what each row of a prompt adds
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_PACE_H_
