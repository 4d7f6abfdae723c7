// What one or more steps did to requests: the engine's whole output.
#ifndef CUPOLA_ENGINE_DELTA_H_
#define CUPOLA_ENGINE_DELTA_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace cupola {

// The order is part of the FFI contract.
enum class FinishReason : int32_t { kNone = 0, kStop, kLength, kAbort, kError };

// Deltas in order, flat: a step of 256 requests makes no allocation of its own per request.
struct DeltaBatch {
  struct Delta {
    int64_t request_id;
    FinishReason finish;
    int32_t num_tokens;   // of `tokens`, following those of the delta before
    int32_t error_index;  // in `errors`, or -1
  };
  std::vector<Delta> deltas;
  std::vector<int32_t> tokens;
  std::vector<std::string> errors;

  bool empty() const { return deltas.empty(); }

  void AddToken(int64_t request_id, int32_t token, FinishReason finish) {
    deltas.push_back({request_id, finish, 1, -1});
    tokens.push_back(token);
  }

  void AddEnd(int64_t request_id, FinishReason finish) {
    deltas.push_back({request_id, finish, 0, -1});
  }

  void AddError(int64_t request_id, const std::string& message) {
    if (errors.empty() || errors.back() != message) errors.push_back(message);
    deltas.push_back(
        {request_id, FinishReason::kError, 0, static_cast<int32_t>(errors.size()) - 1});
  }

  void Append(const DeltaBatch& other) {
    const int32_t first_error = static_cast<int32_t>(errors.size());
    for (Delta delta : other.deltas) {
      if (delta.error_index >= 0) delta.error_index += first_error;
      deltas.push_back(delta);
    }
    tokens.insert(tokens.end(), other.tokens.begin(), other.tokens.end());
    errors.insert(errors.end(), other.errors.begin(), other.errors.end());
  }

  void Clear() {
    deltas.clear();
    tokens.clear();
    errors.clear();
  }
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_DELTA_H_
