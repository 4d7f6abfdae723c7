// What a request asks of the logits before its next token is chosen, in this order: logit bias,
// penalties (repetition, then presence and frequency), allowed ids, bad words, min tokens.
//
// A token that must not come gets the logit kBanned, which has no probability at any temperature.
// It knows no requests: it gets their parameters and tokens.
#ifndef CUPOLA_SAMPLING_PROCESSORS_H_
#define CUPOLA_SAMPLING_PROCESSORS_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "sampling/sampling_params.h"
#include "sampling/token_counts.h"

namespace cupola {

// Finite, so that sums and maxima of a row stay so.
constexpr float kBanned = std::numeric_limits<float>::lowest();

struct RowContext {
  const std::vector<int32_t>& tokens;  // the prompt, then what was generated
  int32_t num_prompt;
  const std::vector<int32_t>& stop_ids;

  int32_t num_generated() const { return static_cast<int32_t>(tokens.size()) - num_prompt; }
};

// Whether ProcessRow would change the row.
bool ChangesRow(const SamplingParams& params, const RowContext& context);

// What is done to the logit of one token: `added` to it, divided by `divisor` (multiplied where it
// is not positive), `taken` away; it is kept within bounds in between. kTakenWhole bans it.
struct TokenEdit {
  int32_t token;
  float added = 0.0f;
  float divisor = 1.0f;
  float taken = 0.0f;
};

constexpr float kTakenWhole = std::numeric_limits<float>::max();

// Appends all that `params` ask of single tokens, in order; there may be several of one token.
// `*counts` is of this request alone. The list of allowed ids is not among it.
void CollectEdits(const SamplingParams& params, const RowContext& context, TokenCounts* counts,
                  std::vector<TokenEdit>* edits);

// Changes `row` [size], whose values are finite, as `params` ask. `*counts` is of this request
// alone; the work is bounded by the distinct tokens of the request and what the parameters list.
void ProcessRow(const SamplingParams& params, const RowContext& context, TokenCounts* counts,
                float* row, int32_t size);

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_PROCESSORS_H_
