// The sizes that the scheduler works within.
#ifndef CUPOLA_ENGINE_LIMITS_H_
#define CUPOLA_ENGINE_LIMITS_H_

#include <algorithm>
#include <cstdint>
#include <limits>

namespace cupola {

struct Limits {
  int32_t num_pages = 0;
  int32_t page_size = 0;        // token slots a page
  int32_t max_batch = 0;        // most running requests
  int32_t max_step_tokens = 0;  // token budget of one step
  int32_t max_context = 0;      // most tokens of one request, prompt and output
  // Most rows of logits that the model gives in one step; at least max_batch.
  int32_t max_logit_rows = std::numeric_limits<int32_t>::max();

  int32_t PagesFor(int32_t num_tokens) const { return (num_tokens + page_size - 1) / page_size; }
  // Every running request must get a row in every step, or a decode could starve.
  int32_t max_running() const { return std::min(max_batch, max_step_tokens); }
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_LIMITS_H_
