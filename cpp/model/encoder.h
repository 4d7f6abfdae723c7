// The door to a model that makes embeddings, or classifies: whole sequences of tokens in, a vector
// for each out.
#ifndef CUPOLA_MODEL_ENCODER_H_
#define CUPOLA_MODEL_ENCODER_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "support/thread_team.h"

namespace cupola {

struct EncoderInfo {
  int32_t vocab_size = 0;
  int32_t num_types = 1;        // token types
  int32_t dimensions = 0;       // of a vector
  int32_t max_context = 0;      // most tokens of a sequence
  int32_t max_step_tokens = 0;  // most tokens of one step
  int32_t max_batch = 0;        // most sequences of one step
};

// n tokens of b sequences, one after the other; none is empty.
struct EncoderInput {
  std::vector<int32_t> ids;        // [n]
  std::vector<int32_t> positions;  // [n] within each sequence
  std::vector<int32_t> types;      // [n] which of two texts a token belongs to
  std::vector<int32_t> q_indptr;   // [b+1] sequence s owns tokens q_indptr[s] .. q_indptr[s+1]
};

class Encoder {
 public:
  virtual ~Encoder() = default;

  virtual const EncoderInfo& info() const = 0;

  // A model has one set of threads, so it serves one runner at a time. False if it is claimed.
  bool Claim() { return !claimed_.exchange(true); }
  void Release() { claimed_ = false; }

  // Prepares the calling thread, the one that will call Embed, and the threads that help it.
  virtual void Start(const TeamOptions& threads) = 0;
  // Ends those threads, until the next Start.
  virtual void Stop() {}

  // Vectors [b, dimensions], which live until the next call. A sequence's vector depends on that
  // sequence only. Throws on failure.
  virtual const float* Embed(const EncoderInput& input) = 0;

 private:
  std::atomic<bool> claimed_{false};
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_ENCODER_H_
