#include "engine/device_sample_stage.h"

#include <algorithm>
#include <cmath>

#include "engine/sample_errors.h"
#include "sampling/sampler.h"
#include "support/rng.h"

namespace cupola {

namespace {

// The random number as a float, which rounds to 1 at most.
float UniformOf(const Request& request) {
  const double uniform = Uniform(request.sampling.seed, request.num_tokens());
  return std::min(static_cast<float>(uniform), std::nextafter(1.0f, 0.0f));
}

}  // namespace

void DeviceSampleStage::Prepare(const StepPlan& plan) {
  sampled_.assign(plan.sequences.size(), {});
  grammar_stage_.Begin(plan);
}

const std::vector<Sampled>& DeviceSampleStage::Sample(const StepPlan& plan,
                                                      DeviceSampler* sampler) {
  grammar_stage_.Finish();
  Ask(plan);
  if (rows_.num_rows() > 0) Read(plan, sampler->Sample(rows_));  // pieces of prompts want none
  return sampled_;
}

void DeviceSampleStage::Ask(const StepPlan& plan) {
  rows_.Clear();
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const PlannedSequence& sequence = plan.sequences[i];
    const int32_t first_scored = sequence.request->num_computed + sequence.first_scored + 1;
    for (int32_t k = 0; k < sequence.num_scored; ++k) {
      AskToScore(*sequence.request, sequence.request->tokens[first_scored + k]);
    }
    if (sequence.samples) AskToSample(i, sequence.request);
  }
  if (rows_.masks.empty()) rows_.masks.push_back(0);
  if (rows_.edits.empty()) rows_.AddEdit(0, 0, 0.0f, 1.0f, 0.0f);
}

void DeviceSampleStage::AskToScore(const Request& request, int32_t token) {
  AskToReport(request.num_prompt_logprobs);
  rows_.AddRow(0.0f, 1.0f, 0.0f, 0.0f, 0, AskedRows::kAll, token);
}

void DeviceSampleStage::AskToSample(size_t i, Request* request) {
  const SamplingParams& params = request->sampling;
  const int32_t row = rows_.num_rows();
  if (request->num_logprobs >= 0) AskToReport(request->num_logprobs);
  const int32_t due = request->thinking.due();
  if (due != kNoToken) {
    rows_.AddRow(0.0f, 1.0f, 0.0f, 0.0f, 0, AskedRows::kAll, due);
    return;
  }
  AddEdits(request);
  const int32_t mask = AddMask(i, *request);
  if (IsGreedy(params)) {
    rows_.AddRow(0.0f, 1.0f, 0.0f, 0.0f, 0, mask, AskedRows::kNothingGiven);
    return;
  }
  if (params.top_k > 0 && params.top_k < vocab_size_) rows_.by_count.push_back(row);
  if (params.top_p < 1.0f) rows_.by_mass.push_back(row);
  rows_.AddRow(1.0f / params.temperature, params.top_p, params.min_p, UniformOf(*request),
               params.top_k, mask, AskedRows::kNothingGiven);
}

void DeviceSampleStage::AskToReport(int32_t num_tops) {
  rows_.reported.push_back(rows_.num_rows());
  rows_.num_tops = std::max(rows_.num_tops, std::min(num_tops, vocab_size_));
}

// What both the grammar and the request's own list allow. Returns where it begins.
int32_t DeviceSampleStage::AddMask(size_t i, const Request& request) {
  const TokenMask* grammar = grammar_stage_.MaskOf(i);
  const std::vector<int32_t>& allowed = request.sampling.allowed_ids;
  if (grammar == nullptr && allowed.empty()) return AskedRows::kAll;
  TokenMask mask(static_cast<size_t>(vocab_size_ + kMaskBits - 1) / kMaskBits,
                 allowed.empty() ? ~uint32_t{0} : 0);
  for (int32_t id : allowed) mask[id / kMaskBits] |= uint32_t{1} << (id % kMaskBits);
  if (grammar != nullptr) {
    for (size_t k = 0; k < mask.size(); ++k) mask[k] &= k < grammar->size() ? (*grammar)[k] : 0;
  }
  const auto begin = static_cast<int32_t>(rows_.masks.size());
  rows_.masks.insert(rows_.masks.end(), mask.begin(), mask.end());
  return begin;
}

// A device applies edits all at once, so that those of one token become one.
void DeviceSampleStage::AddEdits(Request* request) {
  edits_.clear();
  CollectEdits(request->sampling, {request->tokens, request->num_prompt, request->stop_ids},
               &request->counts, &edits_);
  std::stable_sort(edits_.begin(), edits_.end(),
                   [](const TokenEdit& a, const TokenEdit& b) { return a.token < b.token; });
  for (auto one = edits_.begin(); one != edits_.end();) {
    TokenEdit joined = *one;
    while (++one != edits_.end() && one->token == joined.token) {
      joined.added += one->added;
      joined.divisor *= one->divisor;
      joined.taken = std::min(joined.taken + one->taken, kTakenWhole);
    }
    rows_.AddEdit(rows_.num_rows(), joined.token, joined.added, joined.divisor, joined.taken);
  }
}

void DeviceSampleStage::Read(const StepPlan& plan, const SampledRows& rows) {
  int64_t row = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const PlannedSequence& sequence = plan.sequences[i];
    const Request& request = *sequence.request;
    for (int32_t k = 0; k < sequence.num_scored; ++k, ++row) {
      if (rows.token(row) < 0) {
        sampled_[i].error = kNotFinite;
      } else {
        ReadLogprobs(rows, row, request.num_prompt_logprobs, &sampled_[i].prompt_logprobs);
      }
    }
    if (sequence.samples) ReadToken(i, request, rows, row++);
  }
}

void DeviceSampleStage::ReadToken(size_t i, const Request& request, const SampledRows& rows,
                                  int64_t row) {
  Sampled* sampled = &sampled_[i];
  const int32_t token = rows.token(row);
  if (token == SampledRows::kNotFinite) {
    sampled->error = kNotFinite;
    return;
  }
  if (!grammar_stage_.IsGood(i, &sampled->error)) {
    sampled->refused = true;
    return;
  }
  if (token == SampledRows::kNothingAllowed) {
    sampled->error = kNothingAllowed;
    sampled->refused = true;
    return;
  }
  sampled->token = token;
  if (request.num_logprobs >= 0) {
    ReadLogprobs(rows, row, request.num_logprobs, &sampled->logprobs);
  }
  if (request.grammar != nullptr) grammar_stage_.Accept(request, sampled);
}

void DeviceSampleStage::ReadLogprobs(const SampledRows& rows, int64_t row, int32_t num_tops,
                                     TokenLogprobs* out) const {
  out->push_back({rows.token(row), rows.logprob(row, 0), rows.rank(row)});
  for (int32_t place = 1; place <= std::min(num_tops, vocab_size_); ++place) {
    out->push_back({rows.top(row, place), rows.logprob(row, place), place});
  }
}

}  // namespace cupola
