// What one step will do: which sequences read how many tokens, and who samples.
#ifndef CUPOLA_ENGINE_STEP_PLAN_H_
#define CUPOLA_ENGINE_STEP_PLAN_H_

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "engine/window_places.h"
#include "model/step_input.h"

namespace cupola {

struct PlannedSequence {
  Request* request;
  int32_t num_rows;  // tokens to read, from request->num_computed on
  bool samples;      // they reach the end of its tokens, so the last row yields a new one
  // Rows of the prompt whose logits are wanted too, because the next token's log-probability is:
  int32_t first_scored = 0;  // counted from the sequence's first row of this step
  int32_t num_scored = 0;
};

struct StepPlan {
  std::vector<PlannedSequence> sequences;
  std::vector<PageCopy> copies;  // to be made before the forward, in this order
  int32_t budget_left = 0;       // tokens
  int32_t logit_rows_left = 0;   // rows of logits, sampled and scored ones
  int32_t scored_left = 0;       // scored ones

  bool empty() const { return sequences.empty(); }
};

// Fills `*input` for `plan`; every sequence already has pages for the rows it will write, and
// places in the window, if there is one.
void BuildStepInput(const StepPlan& plan, int32_t page_size, const WindowPlaces& window,
                    StepInput* input);

}  // namespace cupola

#endif  // CUPOLA_ENGINE_STEP_PLAN_H_
