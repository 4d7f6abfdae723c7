// The sizes that the scheduler works within, and what it may do.
#ifndef CUPOLA_ENGINE_LIMITS_H_
#define CUPOLA_ENGINE_LIMITS_H_

#include <algorithm>
#include <cstdint>
#include <limits>

namespace cupola {

// What is expected of the requests that run, when one more wants to. The order is part of the FFI
// contract.
enum class Foresight : int32_t {
  kPredicted = 0,  // outputs as long as those before; who runs out of pages is preempted
  kConservative,   // outputs as long as they may become: nobody is ever preempted
  kOptimistic,     // a page more for each: most requests at once, and most preemptions
};

struct Limits {
  int32_t num_pages = 0;
  int32_t page_size = 0;  // token slots a page
  // Tokens that the layers with a window see, and pages that these layers have places for. 0: every
  // layer sees everything.
  int32_t window = 0;
  int32_t num_window_pages = 0;
  int32_t max_batch = 0;        // most running requests
  int32_t max_step_tokens = 0;  // token budget of one step
  int32_t max_context = 0;      // most tokens of one request, prompt and output
  // Most rows of logits that the model gives in one step; at least max_batch.
  int32_t max_logit_rows = std::numeric_limits<int32_t>::max();

  bool prefix_cache = true;  // pages are found again by their tokens
  Foresight foresight = Foresight::kPredicted;
  int32_t prefill_rows = 0;  // of prompts in a step beside streams; 0: as the step's time allows

  int32_t PagesFor(int32_t num_tokens) const { return (num_tokens + page_size - 1) / page_size; }
  // The first page that a row at `position` sees through the window.
  int32_t FirstInWindow(int32_t position) const {
    return std::max(0, position - window + 1) / page_size;
  }
  // Pages that all who run may use at once through the window.
  int64_t MostWindowPages() const {
    const int64_t each = (window + page_size - 2) / page_size + 2;
    const int64_t copied_from = 1;
    return std::min<int64_t>(num_pages,
                             max_running() * each + PagesFor(max_step_tokens) + copied_from);
  }
  // Every running request must get a row in every step, or a decode could starve.
  int32_t max_running() const { return std::min(max_batch, max_step_tokens); }
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_LIMITS_H_
