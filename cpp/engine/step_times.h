// How long requests wait for their first step, for their first token and for each next one; and how
// large steps are. Written once a step by the engine thread, read by any other.
#ifndef CUPOLA_ENGINE_STEP_TIMES_H_
#define CUPOLA_ENGINE_STEP_TIMES_H_

#include <cstdint>
#include <mutex>

#include "engine/histogram.h"
#include "engine/step_plan.h"

namespace cupola {

struct StepHistograms {
  Histogram queue_seconds;    // from arrival to the first step
  Histogram prefill_seconds;  // from there to the end of the step with the first token
  Histogram inter_token_seconds;
  Histogram step_tokens;  // rows that a step computes
};

class StepTimes {
 public:
  StepTimes();
  // Books a step that began and ended at these times of the steady clock; before its results are
  // committed, which may end its requests.
  void Add(const StepPlan& plan, int64_t begin_ns, int64_t end_ns);
  StepHistograms Get() const;

 private:
  void AddSequence(const PlannedSequence& sequence, int64_t begin_ns, int64_t end_ns);

  mutable std::mutex mutex_;
  StepHistograms histograms_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_STEP_TIMES_H_
