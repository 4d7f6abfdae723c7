// From a step's rows of logits to tokens and log-probabilities, for all sequences of a plan.
//
// It knows which row belongs to whom, and what each request asked of it. It owns scratch memory
// only; progress is the scheduler's.
#ifndef CUPOLA_ENGINE_SAMPLE_STAGE_H_
#define CUPOLA_ENGINE_SAMPLE_STAGE_H_

#include <cstdint>
#include <vector>

#include "engine/grammar_stage.h"
#include "engine/step_plan.h"
#include "model/model.h"
#include "sampling/logprobs.h"
#include "sampling/sampled.h"
#include "sampling/sampler.h"

namespace cupola {

class SampleStage {
 public:
  explicit SampleStage(int32_t vocab_size) : vocab_size_(vocab_size) {}

  // Before the forward: makes room for the results of `plan`, and begins with the masks of
  // grammars.
  void Prepare(const StepPlan& plan);
  // After it: one result for each planned sequence, in order; valid until the next Prepare. Writes
  // into `logits`. A row that cannot be sampled is an error of its own sequence only.
  const std::vector<Sampled>& Sample(const StepPlan& plan, const LogitsView& logits);

 private:
  void ScoreRow(const Request& request, int32_t position, const float* row, Sampled* sampled);
  void SampleRow(size_t i, Request* request, float* row);
  void TakeDue(int32_t due, const Request& request, const float* row, Sampled* sampled);

  const int32_t vocab_size_;
  GrammarStage grammar_stage_;
  Sampler sampler_;
  LogprobReader logprob_reader_;
  std::vector<Sampled> sampled_;
  std::vector<float> raw_;  // a row as the model gave it, beside the one that was changed
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_SAMPLE_STAGE_H_
