// As the sample stage, for a model whose device samples: what each request asks of its row is put
// into numbers, and what comes back into tokens and log-probabilities.
#ifndef CUPOLA_ENGINE_DEVICE_SAMPLE_STAGE_H_
#define CUPOLA_ENGINE_DEVICE_SAMPLE_STAGE_H_

#include <cstdint>
#include <vector>

#include "engine/grammar_stage.h"
#include "engine/step_plan.h"
#include "model/device_sampler.h"
#include "sampling/processors.h"
#include "sampling/sampled.h"

namespace cupola {

class DeviceSampleStage {
 public:
  explicit DeviceSampleStage(int32_t vocab_size) : vocab_size_(vocab_size) {}

  // Before the forward and after it, as SampleStage.
  void Prepare(const StepPlan& plan);
  const std::vector<Sampled>& Sample(const StepPlan& plan, DeviceSampler* sampler);

 private:
  void Ask(const StepPlan& plan);
  void AskToScore(const Request& request, int32_t token);
  void AskToSample(size_t i, Request* request);
  void AskToReport(int32_t num_tops);
  int32_t AddMask(size_t i, const Request& request);
  void AddEdits(Request* request);
  void Read(const StepPlan& plan, const SampledRows& rows);
  void ReadToken(size_t i, const Request& request, const SampledRows& rows, int64_t row);
  void ReadLogprobs(const SampledRows& rows, int64_t row, int32_t num_tops,
                    TokenLogprobs* out) const;

  const int32_t vocab_size_;
  GrammarStage grammar_stage_;
  AskedRows rows_;
  std::vector<TokenEdit> edits_;  // of one row
  std::vector<Sampled> sampled_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_DEVICE_SAMPLE_STAGE_H_
