// What one or more steps did to requests: the engine's whole output.
#ifndef CUPOLA_ENGINE_DELTA_H_
#define CUPOLA_ENGINE_DELTA_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "sampling/sampled.h"

namespace cupola {

// The order is part of the FFI contract.
enum class FinishReason : int32_t {
  kNone = 0,
  kStop,
  kLength,
  kAbort,
  kError,
  kDeadline,
  kRefused,  // what the request asks for cannot be; seen only when it ran
};

// Deltas in order, flat: a step of 256 requests makes no allocation of its own per request.
struct DeltaBatch {
  struct Delta {
    int64_t request_id = 0;
    FinishReason finish = FinishReason::kNone;
    int32_t num_tokens = 0;  // of `tokens`, following those of the delta before
    int32_t num_scored = 0;  // positions of the prompt that `logprobs` are of; else of the tokens,
                             // or, where there are none, of the stop id
    int32_t num_logprobs = 0;  // of `logprobs`, likewise
    int32_t num_cached = -1;   // tokens of the prompt found in the prefix cache; said once
    int32_t error_index = -1;  // in `errors`, or -1
  };
  std::vector<Delta> deltas;
  std::vector<int32_t> tokens;
  TokenLogprobs logprobs;
  std::vector<std::string> errors;

  bool empty() const { return deltas.empty(); }

  void AddToken(int64_t request_id, int32_t token, FinishReason finish,
                const TokenLogprobs& token_logprobs) {
    Delta& delta = Add(request_id, finish);
    delta.num_tokens = 1;
    tokens.push_back(token);
    AddLogprobs(token_logprobs, &delta);
  }

  // Log-probabilities of the next `num_scored` positions of the prompt.
  void AddScores(int64_t request_id, int32_t num_scored, const TokenLogprobs& prompt_logprobs) {
    Delta& delta = Add(request_id, FinishReason::kNone);
    delta.num_scored = num_scored;
    AddLogprobs(prompt_logprobs, &delta);
  }

  void AddEnd(int64_t request_id, FinishReason finish) { Add(request_id, finish); }

  // The end by a stop id, which is no token of the answer; `stop_logprobs` are of its position.
  void AddStop(int64_t request_id, const TokenLogprobs& stop_logprobs) {
    AddLogprobs(stop_logprobs, &Add(request_id, FinishReason::kStop));
  }

  void AddError(int64_t request_id, const std::string& message,
                FinishReason reason = FinishReason::kError) {
    if (errors.empty() || errors.back() != message) errors.push_back(message);
    Add(request_id, reason).error_index = static_cast<int32_t>(errors.size()) - 1;
  }

  void Append(const DeltaBatch& other) {
    const int32_t first_error = static_cast<int32_t>(errors.size());
    for (Delta delta : other.deltas) {
      if (delta.error_index >= 0) delta.error_index += first_error;
      deltas.push_back(delta);
    }
    tokens.insert(tokens.end(), other.tokens.begin(), other.tokens.end());
    logprobs.insert(logprobs.end(), other.logprobs.begin(), other.logprobs.end());
    errors.insert(errors.end(), other.errors.begin(), other.errors.end());
  }

  void Clear() {
    deltas.clear();
    tokens.clear();
    logprobs.clear();
    errors.clear();
  }

 private:
  Delta& Add(int64_t request_id, FinishReason finish) {
    Delta& delta = deltas.emplace_back();
    delta.request_id = request_id;
    delta.finish = finish;
    return delta;
  }

  void AddLogprobs(const TokenLogprobs& added, Delta* delta) {
    delta->num_logprobs = static_cast<int32_t>(added.size());
    logprobs.insert(logprobs.end(), added.begin(), added.end());
  }
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_DELTA_H_
