// The door to a model whose device chooses tokens: rows of logits stay there, tokens come back.
#ifndef CUPOLA_MODEL_DEVICE_SAMPLER_H_
#define CUPOLA_MODEL_DEVICE_SAMPLER_H_

#include <cstdint>
#include <cstring>
#include <vector>

#include "model/step_input.h"

namespace cupola {

inline int32_t BitsOf(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// What is asked of the m rows of a step, as the library takes it: kernels/gpu/sampling.py says what
// each number means.
struct AskedRows {
  static constexpr int32_t kAll = -1;           // in place of a mask
  static constexpr int32_t kNothingGiven = -1;  // in place of a token that is only reported

  std::vector<int32_t> settings;  // [8m]
  std::vector<int32_t> by_count;  // rows that top-k cuts
  std::vector<int32_t> by_mass;   // rows that top-p cuts
  std::vector<int32_t> reported;  // rows whose log-probabilities are wanted
  std::vector<int32_t> masks;     // words of 32 bits; at least one
  std::vector<int32_t> edits;     // [5e], at least one
  int32_t num_tops = 0;           // most probable tokens told of each reported row

  void Clear() {
    for (auto* list : {&settings, &by_count, &by_mass, &reported, &masks, &edits}) list->clear();
    num_tops = 0;
  }
  int32_t num_rows() const { return static_cast<int32_t>(settings.size() / 8); }
  void AddRow(float scale, float top_p, float min_p, float uniform, int32_t top_k, int32_t mask,
              int32_t given) {
    settings.insert(settings.end(), {BitsOf(scale), BitsOf(top_p), BitsOf(min_p), BitsOf(uniform),
                                     top_k, mask, given, 0});
  }
  // Of one token of a row, at most one: added to its logit; what divides it, or multiplies it where
  // it is not positive; then taken away.
  void AddEdit(int32_t row, int32_t token, float added, float divisor, float taken) {
    edits.insert(edits.end(), {row, token, BitsOf(added), BitsOf(divisor), BitsOf(taken)});
  }
};

// What came back; it lives until the next step.
struct SampledRows {
  static constexpr int32_t kNothingAllowed = -1;  // in place of a token
  static constexpr int32_t kNotFinite = -2;

  const int32_t* data = nullptr;
  int32_t num_tops = 0;

  int32_t token(int64_t row) const { return at(row)[1]; }
  // Of reported rows only: the rank of the token, and the log-probability of it (place 0) and of
  // the most probable tokens (from place 1 on).
  int32_t rank(int64_t row) const { return at(row)[0]; }
  int32_t top(int64_t row, int32_t place) const { return at(row)[1 + 2 * place]; }
  float logprob(int64_t row, int32_t place) const {
    float value;
    std::memcpy(&value, at(row) + 2 + 2 * place, sizeof(value));
    return value;
  }

 private:
  const int32_t* at(int64_t row) const { return data + row * (3 + 2 * num_tops); }
};

class DeviceSampler {
 public:
  virtual ~DeviceSampler() = default;

  // As Model::Forward, but the rows of logits stay on the device until the next step.
  virtual void Compute(const StepInput& input) = 0;
  // A token from each of them. Throws on failure.
  virtual SampledRows Sample(const AskedRows& rows) = 0;
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_DEVICE_SAMPLER_H_
