// One sequence to generate, as the engine keeps it: what was asked, and how far it has come.
//
// It knows token ids and pages, no text. Only the scheduler changes its progress.
#ifndef CUPOLA_ENGINE_REQUEST_H_
#define CUPOLA_ENGINE_REQUEST_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "sampling/sampling_params.h"
#include "sampling/thinking_limit.h"
#include "sampling/token_counts.h"

namespace cupola {

class Grammar;

struct Request {
  static constexpr int32_t kNever = std::numeric_limits<int32_t>::max();

  // What was asked.
  int64_t id = 0;
  int32_t priority = 0;    // larger is served first
  int32_t max_tokens = 1;  // 0: only the log-probabilities of the prompt are wanted
  SamplingParams sampling;
  std::vector<int32_t> stop_ids;
  std::shared_ptr<Grammar> grammar;  // null: any text
  // Most probable tokens reported beside each output token; -1: not even its own log-probability.
  int32_t num_logprobs = -1;
  int32_t num_prompt_logprobs = 0;  // and beside each scored token of the prompt
  uint64_t cache_seed = 0;          // requests of different seeds share no page
  bool pin_prefix = false;          // keep the pages of the prompt in the prefix cache
  int64_t deadline_ns = 0;          // of the steady clock; 0: none

  // How far it has come.
  std::vector<int32_t> tokens;  // the prompt, then what was generated
  int32_t num_prompt = 0;
  int32_t num_computed = 0;  // tokens whose keys and values are in the pages
  int32_t num_admitted = 0;  // tokens that it had when it was last admitted
  std::vector<int32_t> pages;
  int32_t num_indexed = 0;  // leading pages that the prefix cache knows
  // Of the pages those that it uses through the window: from one, up to the other.
  int32_t window_begin = 0;
  int32_t window_end = 0;
  uint64_t arrival = 0;  // the scheduler's count of requests, for first come, first served
  bool running = false;
  bool started = false;    // it was admitted once; a preempted request stays started
  bool preempted = false;  // it lost its pages once
  int32_t num_passed = 0;  // younger requests that were admitted before it, because they fitted
  int32_t num_cached = 0;  // tokens of the prompt that were found in the prefix cache
  TokenCounts counts;      // for penalties; may lag behind `tokens`
  ThinkingLimit thinking;  // what was asked, and how much of it is spent
  // When it came, was first computed and last got a token, by the steady clock; 0: not yet.
  int64_t arrival_ns = 0;
  int64_t first_step_ns = 0;
  int64_t last_token_ns = 0;
  // The first position of the prompt whose log-probability is wanted and not known yet.
  int32_t logprobs_from = kNever;

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_generated() const { return num_tokens() - num_prompt; }
  // Tokens that the model must still read before the next one can be sampled.
  int32_t num_uncomputed() const { return num_tokens() - num_computed; }
  // Only tokens that it generated since it was admitted are not in the pages: the newest one, and
  // those that a grammar forced after it.
  bool decoding() const { return running && num_computed >= num_admitted; }
  // The first so many tokens need not be computed where their pages are known: one row at least is
  // computed to sample from, and so is each whose logits are wanted.
  int32_t max_reused() const {
    const bool scored = logprobs_from >= num_prompt;
    return std::max(0, scored ? num_tokens() - 1 : std::min(num_tokens(), logprobs_from) - 1);
  }
  // The last token generated is never read again, so it needs no place in the cache.
  int32_t max_cached_tokens() const { return num_prompt + std::max(max_tokens, 1) - 1; }
  bool IsStopId(int32_t token) const {
    return std::find(stop_ids.begin(), stop_ids.end(), token) != stop_ids.end();
  }
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_REQUEST_H_
