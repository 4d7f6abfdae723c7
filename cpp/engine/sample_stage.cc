#include "engine/sample_stage.h"

#include "engine/sample_errors.h"
#include "sampling/processors.h"

namespace cupola {

namespace {

RowContext ContextOf(const Request& request) {
  return {request.tokens, request.num_prompt, request.stop_ids};
}

}  // namespace

void SampleStage::Prepare(const StepPlan& plan) {
  sampled_.assign(plan.sequences.size(), {});
  grammar_stage_.Begin(plan);
}

const std::vector<Sampled>& SampleStage::Sample(const StepPlan& plan, const LogitsView& logits) {
  grammar_stage_.Finish();
  int64_t row = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const PlannedSequence& sequence = plan.sequences[i];
    Request* request = sequence.request;
    const int32_t first_scored = request->num_computed + sequence.first_scored + 1;
    for (int32_t k = 0; k < sequence.num_scored; ++k) {
      ScoreRow(*request, first_scored + k, logits.row(row++), &sampled_[i]);
    }
    if (sequence.samples) SampleRow(i, request, logits.row(row++));
  }
  return sampled_;
}

// The log-probability of the prompt's token at `position`, from the row of the token before it.
void SampleStage::ScoreRow(const Request& request, int32_t position, const float* row,
                           Sampled* sampled) {
  if (!logprob_reader_.Read(row, vocab_size_, request.tokens[position], request.num_prompt_logprobs,
                            &sampled->prompt_logprobs)) {
    sampled->error = kNotFinite;
  }
}

void SampleStage::SampleRow(size_t i, Request* request, float* row) {
  Sampled* sampled = &sampled_[i];
  const float* raw = row;
  const bool constrained = request->grammar != nullptr;
  const int32_t due = request->thinking.due();
  if (due != kNoToken) return TakeDue(due, *request, row, sampled);
  const bool changes = constrained || ChangesRow(request->sampling, ContextOf(*request));
  if (changes) {
    if (!sampler_.IsFinite(row, vocab_size_)) {
      sampled->error = kNotFinite;
      return;
    }
    if (request->num_logprobs >= 0) {
      raw_.assign(row, row + vocab_size_);
      raw = raw_.data();
    }
    ProcessRow(request->sampling, ContextOf(*request), &request->counts, row, vocab_size_);
    if (!grammar_stage_.Apply(i, row, vocab_size_, &sampled->error)) {
      sampled->refused = true;
      return;
    }
  }
  sampled->token = sampler_.Sample(row, vocab_size_, request->sampling, request->num_tokens());
  if (sampled->token == kNoToken) {
    sampled->error = changes ? kNothingAllowed : kNotFinite;
    sampled->refused = changes;
    return;
  }
  if (request->num_logprobs >= 0) {
    logprob_reader_.Read(raw, vocab_size_, sampled->token, request->num_logprobs,
                         &sampled->logprobs);
  }
  if (constrained) grammar_stage_.Accept(*request, sampled);
}

// The token that has to come, whatever the row says.
void SampleStage::TakeDue(int32_t due, const Request& request, const float* row, Sampled* sampled) {
  if (!sampler_.IsFinite(row, vocab_size_)) {
    sampled->error = kNotFinite;
    return;
  }
  sampled->token = due;
  if (request.num_logprobs >= 0) {
    logprob_reader_.Read(row, vocab_size_, due, request.num_logprobs, &sampled->logprobs);
  }
  if (request.grammar != nullptr) grammar_stage_.Accept(request, sampled);
}

}  // namespace cupola
