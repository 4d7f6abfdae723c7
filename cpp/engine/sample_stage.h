// From a step's rows of logits to tokens and log-probabilities, for all sequences of a plan.
//
// It knows which row belongs to whom, and what each request asked of it. It owns scratch memory
// only; progress is the scheduler's.
#ifndef CUPOLA_ENGINE_SAMPLE_STAGE_H_
#define CUPOLA_ENGINE_SAMPLE_STAGE_H_

#include <cstdint>
#include <vector>

#include "engine/step_plan.h"
#include "model/model.h"
#include "sampling/sampled.h"
#include "sampling/sampler.h"

namespace cupola {

class SampleStage {
 public:
  explicit SampleStage(int32_t vocab_size) : vocab_size_(vocab_size) {}

  // Before the forward: makes room for the results of `plan`.
  void Prepare(const StepPlan& plan);
  // After it: one result for each planned sequence, in order; valid until the next Prepare. May
  // write into `logits`. A row that cannot be sampled is an error of its own sequence only.
  const std::vector<Sampled>& Sample(const StepPlan& plan, const LogitsView& logits);

 private:
  void SampleRow(const Request& request, const float* row, Sampled* sampled);

  const int32_t vocab_size_;
  Sampler sampler_;
  std::vector<Sampled> sampled_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_SAMPLE_STAGE_H_
