#include "sampling/processors.h"

#include <algorithm>

namespace cupola {

namespace {

// No sum or product of two of these leaves the floats, nor reaches kBanned.
constexpr float kLargest = 1e38f;

float Bounded(float logit) { return std::clamp(logit, -kLargest, kLargest); }

void Apply(const TokenEdit& edit, float* row) {
  float& logit = row[edit.token];
  if (edit.taken == kTakenWhole) {
    logit = kBanned;
    return;
  }
  float value = Bounded(logit + edit.added);
  value = value > 0 ? value / edit.divisor : value * edit.divisor;
  logit = Bounded(value - edit.taken);
}

// Repetition as in Keskar et al., "CTRL" (2019), with the sign rule of Hugging Face, over prompt
// and output; presence and frequency as OpenAI defines them, over the output alone.
void Penalize(const SamplingParams& params, const TokenCounts& counts,
              std::vector<TokenEdit>* edits) {
  for (const TokenCounts::Entry& entry : counts.entries()) {
    const auto generated = static_cast<float>(entry.generated);
    const float taken = params.presence_penalty + params.frequency_penalty * generated;
    edits->push_back(
        {entry.token, 0.0f, params.repetition_penalty, entry.generated > 0 ? taken : 0.0f});
  }
}

void Ban(int32_t token, std::vector<TokenEdit>* edits) {
  edits->push_back({token, 0.0f, 1.0f, kTakenWhole});
}

void KeepAllowed(const std::vector<int32_t>& allowed, float* row, int32_t size) {
  std::vector<float> kept;
  kept.reserve(allowed.size());
  for (int32_t id : allowed) kept.push_back(row[id]);
  std::fill(row, row + size, kBanned);
  for (size_t i = 0; i < allowed.size(); ++i) row[allowed[i]] = kept[i];
}

// Whether the tokens end with all of `word` but its last.
bool IsAboutToComplete(const std::vector<int32_t>& word, const std::vector<int32_t>& tokens) {
  const size_t length = word.size() - 1;
  return length <= tokens.size() && std::equal(word.begin(), word.end() - 1, tokens.end() - length);
}

void BanWords(const std::vector<std::vector<int32_t>>& words, const std::vector<int32_t>& tokens,
              std::vector<TokenEdit>* edits) {
  for (const std::vector<int32_t>& word : words) {
    if (IsAboutToComplete(word, tokens)) Ban(word.back(), edits);
  }
}

bool TooEarlyToStop(const SamplingParams& params, const RowContext& context) {
  return context.num_generated() < params.min_tokens && !context.stop_ids.empty();
}

}  // namespace

bool ChangesRow(const SamplingParams& params, const RowContext& context) {
  return !params.bias_ids.empty() || params.penalizes() || !params.allowed_ids.empty() ||
         !params.bad_words.empty() || TooEarlyToStop(params, context);
}

void CollectEdits(const SamplingParams& params, const RowContext& context, TokenCounts* counts,
                  std::vector<TokenEdit>* edits) {
  for (size_t i = 0; i < params.bias_ids.size(); ++i) {
    edits->push_back({params.bias_ids[i], params.bias_values[i]});
  }
  if (params.penalizes()) {
    counts->CatchUp(context.tokens, context.num_prompt);
    Penalize(params, *counts, edits);
  }
  BanWords(params.bad_words, context.tokens, edits);
  if (TooEarlyToStop(params, context)) {
    for (int32_t id : context.stop_ids) Ban(id, edits);
  }
}

void ProcessRow(const SamplingParams& params, const RowContext& context, TokenCounts* counts,
                float* row, int32_t size) {
  std::vector<TokenEdit> edits;
  CollectEdits(params, context, counts, &edits);
  for (const TokenEdit& edit : edits) Apply(edit, row);
  if (!params.allowed_ids.empty()) KeepAllowed(params.allowed_ids, row, size);
}

}  // namespace cupola
