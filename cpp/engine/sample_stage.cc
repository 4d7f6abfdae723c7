#include "engine/sample_stage.h"

namespace cupola {

void SampleStage::Prepare(const StepPlan& plan) { sampled_.assign(plan.sequences.size(), {}); }

const std::vector<Sampled>& SampleStage::Sample(const StepPlan& plan, const LogitsView& logits) {
  int64_t row = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const PlannedSequence& sequence = plan.sequences[i];
    row += sequence.num_scored;
    if (sequence.samples) SampleRow(*sequence.request, logits.row(row++), &sampled_[i]);
  }
  return sampled_;
}

void SampleStage::SampleRow(const Request& request, const float* row, Sampled* sampled) {
  static const std::vector<int32_t> kNothingBanned;
  const bool too_early = request.num_generated() < request.sampling.min_tokens;
  const std::vector<int32_t>& banned = too_early ? request.stop_ids : kNothingBanned;
  sampled->token =
      sampler_.Sample(row, vocab_size_, request.sampling, request.num_tokens(), banned);
  if (sampled->token == kNoToken) {
    sampled->error = "the model returned logits that are not finite";
  }
}

}  // namespace cupola
