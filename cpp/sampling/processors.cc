#include "sampling/processors.h"

#include <algorithm>

namespace cupola {

namespace {

// No sum or product of two of these leaves the floats, nor reaches kBanned.
constexpr float kLargest = 1e38f;

float Bounded(float logit) { return std::clamp(logit, -kLargest, kLargest); }

void AddBias(const SamplingParams& params, float* row) {
  for (size_t i = 0; i < params.bias_ids.size(); ++i) {
    float& logit = row[params.bias_ids[i]];
    logit = Bounded(logit + params.bias_values[i]);
  }
}

// Repetition as in Keskar et al., "CTRL" (2019), with the sign rule of Hugging Face, over prompt
// and output; presence and frequency as OpenAI defines them, over the output alone.
void Penalize(const SamplingParams& params, const TokenCounts& counts, float* row) {
  const float repetition = params.repetition_penalty;
  for (const TokenCounts::Entry& entry : counts.entries()) {
    float logit = Bounded(row[entry.token]);
    logit = logit > 0 ? logit / repetition : logit * repetition;
    if (entry.generated > 0) {
      logit -=
          params.presence_penalty + params.frequency_penalty * static_cast<float>(entry.generated);
    }
    row[entry.token] = Bounded(logit);
  }
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
              float* row) {
  for (const std::vector<int32_t>& word : words) {
    if (IsAboutToComplete(word, tokens)) row[word.back()] = kBanned;
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

void ProcessRow(const SamplingParams& params, const RowContext& context, TokenCounts* counts,
                float* row, int32_t size) {
  AddBias(params, row);
  if (params.penalizes()) {
    counts->CatchUp(context.tokens, context.num_prompt);
    Penalize(params, *counts, row);
  }
  if (!params.allowed_ids.empty()) KeepAllowed(params.allowed_ids, row, size);
  BanWords(params.bad_words, context.tokens, row);
  if (TooEarlyToStop(params, context)) {
    for (int32_t id : context.stop_ids) row[id] = kBanned;
  }
}

}  // namespace cupola
