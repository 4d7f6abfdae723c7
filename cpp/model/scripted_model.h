// A model whose every token can be computed by hand: the double for tests of all that is above it.
//
// It keeps a real store of tokens addressed by slots, and reads a sequence's whole history back
// through its page table, the end of it through that of the window if there is one: a wrong slot,
// page or position gives a wrong token. The rule:
//
//   h = 2166136261;  for each token t of the history: h = ((h xor t) * 16777619) mod 2^32
//   r = h >> 16      (the low bits of h cancel against a token that was made of them)
//   next = eos_id                     if eos_id >= 0, eos_every > 0 and r mod eos_every == 0
//        = first_id + r mod num_ids   otherwise
//
// The row of logits is 20 at `next` and 0 elsewhere, or NaN when the last token is `poison_id`.
#ifndef CUPOLA_MODEL_SCRIPTED_MODEL_H_
#define CUPOLA_MODEL_SCRIPTED_MODEL_H_

#include <cstdint>
#include <vector>

#include "model/model.h"

namespace cupola {

struct Script {
  int32_t vocab_size = 512;
  int32_t first_id = 0;
  int32_t num_ids = 256;
  int32_t eos_id = -1;     // -1: never
  int32_t eos_every = 0;   // 0: never
  int32_t poison_id = -1;  // -1: none
  int32_t page_size = 16;
  int32_t window = 0;        // tokens at the end of a history that are read through the window
  int64_t step_us = 0;       // microseconds that a step takes
  int64_t token_us = 0;      // and each of its rows
  int64_t fail_at_step = 0;  // the forward that throws, counted from 1; 0: none
  int64_t fail_steps = 1;    // how many in a row throw
};

class ScriptedModel : public Model {
 public:
  explicit ScriptedModel(const Script& script);

  const ModelInfo& info() const override { return info_; }
  void Start(int32_t num_pages, int32_t num_window_pages, const TeamOptions& threads) override;
  void CopyPages(const std::vector<PageCopy>& copies) override;
  LogitsView Forward(const StepInput& input) override;

 private:
  void Store(const StepInput& input);
  void FillRow(const StepInput& input, int32_t row, float* logits) const;

  const Script script_;
  ModelInfo info_;
  std::vector<int32_t> tokens_;         // [num_pages * page_size]
  std::vector<int32_t> window_tokens_;  // [num_window_pages * page_size]
  std::vector<float> logits_;
  int64_t num_forwards_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_SCRIPTED_MODEL_H_
