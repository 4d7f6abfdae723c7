// What came out of one sequence's rows of logits.
#ifndef CUPOLA_SAMPLING_SAMPLED_H_
#define CUPOLA_SAMPLING_SAMPLED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "sampling/sampling_params.h"

namespace cupola {

// A token's log-probability in the distribution of the raw logits.
struct TokenLogprob {
  int32_t token;
  float logprob;
  int32_t rank;  // 1 for the token that greedy decoding takes; 2 for the next
};

// Log-probabilities of one or more positions, flat: for each position the token that stands there,
// then the most probable ones, best first. All positions have the same number of entries.
using TokenLogprobs = std::vector<TokenLogprob>;

struct Sampled {
  int32_t token = kNoToken;     // kNoToken also where the sequence does not sample
  std::vector<int32_t> forced;  // tokens that a grammar forces after it; none if log-probabilities
                                // are asked for
  bool completes = false;       // its grammar allows nothing after them
  TokenLogprobs logprobs;       // of `token`, if asked for
  TokenLogprobs prompt_logprobs;  // of the scored rows of the prompt
  std::string error;              // why there is no token, although the sequence samples
  bool refused = false;           // `error` is of the request's own making
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_SAMPLED_H_
