#include "engine/grammar_stage.h"

#include <algorithm>

#include "sampling/grammar.h"

namespace cupola {

namespace {

// A bound for what one request adds to a step; what is forced beyond it comes with the next.
constexpr int32_t kMaxForced = 64;

}  // namespace

void GrammarStage::Begin(const StepPlan& plan) {
  Finish();
  entries_.resize(std::max(entries_.size(), plan.sequences.size()));
  jobs_.clear();
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const PlannedSequence& sequence = plan.sequences[i];
    entries_[i].grammar = sequence.samples ? sequence.request->grammar : nullptr;
    if (entries_[i].grammar != nullptr) jobs_.push_back(i);
  }
  if (jobs_.empty()) return;
  worker_.Begin(static_cast<int32_t>(jobs_.size()), [this](int32_t job) {
    Entry& entry = entries_[jobs_[job]];
    entry.filled = entry.grammar->FillMask(&entry.mask);
  });
}

void GrammarStage::Finish() {
  if (!jobs_.empty()) worker_.Finish();
}

bool GrammarStage::Apply(size_t i, float* row, int32_t size, std::string* error) const {
  const TokenMask* mask = MaskOf(i);
  if (mask != nullptr) ApplyMask(*mask, row, size);
  return IsGood(i, error);
}

const TokenMask* GrammarStage::MaskOf(size_t i) const {
  const Entry& entry = entries_[i];
  return entry.grammar != nullptr && entry.filled ? &entry.mask : nullptr;
}

bool GrammarStage::IsGood(size_t i, std::string* error) const {
  const Entry& entry = entries_[i];
  if (entry.grammar == nullptr || entry.filled) return true;
  *error = "the grammar cannot go on: " + entry.grammar->error();
  return false;
}

void GrammarStage::Accept(const Request& request, Sampled* sampled) const {
  Grammar& grammar = *request.grammar;
  bool good = grammar.Accept(sampled->token);
  // A token without a forward has no log-probability: where they are wanted, nothing is skipped.
  const int32_t room = request.max_tokens - request.num_generated() - 1;
  if (good && request.num_logprobs < 0 && !grammar.IsStopped()) {
    sampled->forced = grammar.ForcedTokens(std::min(room, kMaxForced));
    for (int32_t token : sampled->forced) good = good && grammar.Accept(token);
  }
  if (!good) sampled->error = "the grammar does not take a token: " + grammar.error();
  sampled->completes = grammar.IsStopped();
}

}  // namespace cupola
