// The part of sampling that belongs to grammars: masks before, progress after.
//
// Masks are filled on a thread of their own while the model's forward runs. It knows which requests
// have a grammar; where a grammar stands changes here and nowhere else.
#ifndef CUPOLA_ENGINE_GRAMMAR_STAGE_H_
#define CUPOLA_ENGINE_GRAMMAR_STAGE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/step_plan.h"
#include "sampling/sampled.h"
#include "sampling/token_mask.h"
#include "support/worker.h"

namespace cupola {

class GrammarStage {
 public:
  // Begins to fill the masks of those sequences of `plan` that will sample under a grammar. Nobody
  // may touch these grammars until Finish, or until the next Begin if the step fails.
  void Begin(const StepPlan& plan);
  // Waits for the masks.
  void Finish();

  // Bans what the grammar of the i-th planned sequence does not allow. False when its grammar has
  // failed: `*error` then says why.
  bool Apply(size_t i, float* row, int32_t size, std::string* error) const;
  // The same for who applies masks itself: null where nothing is banned, or the grammar has failed.
  const TokenMask* MaskOf(size_t i) const;
  bool IsGood(size_t i, std::string* error) const;
  // Moves the request's grammar on by the sampled token, and by all that it then forces.
  void Accept(const Request& request, Sampled* sampled) const;

 private:
  struct Entry {
    std::shared_ptr<Grammar> grammar;  // null: none, or it does not sample
    TokenMask mask;
    bool filled = false;
  };

  std::vector<Entry> entries_;  // one for each planned sequence; grown, never shrunk
  std::vector<size_t> jobs_;    // those with a grammar
  Worker worker_{"cupola-grammar"};
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_GRAMMAR_STAGE_H_
