#include "model/scripted_model.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>

namespace cupola {

namespace {

constexpr float kCertain = 20.0f;
constexpr int32_t kUnwritten = -1;

}  // namespace

ScriptedModel::ScriptedModel(const Script& script) : script_(script) {
  info_.vocab_size = script.vocab_size;
  info_.page_size = script.page_size;
  info_.window = script.window;
  info_.max_step_tokens = std::numeric_limits<int32_t>::max();
  info_.max_batch = std::numeric_limits<int32_t>::max();
}

void ScriptedModel::Start(int32_t num_pages, int32_t num_window_pages,
                          const TeamOptions& /*threads*/) {
  tokens_.assign(static_cast<size_t>(num_pages) * script_.page_size, kUnwritten);
  window_tokens_.assign(static_cast<size_t>(num_window_pages) * script_.page_size, kUnwritten);
}

void ScriptedModel::CopyPages(const std::vector<PageCopy>& copies) {
  const int64_t size = script_.page_size;
  const auto move = [size](int64_t src, int64_t dst, std::vector<int32_t>* tokens) {
    const auto page = tokens->begin() + src * size;
    std::copy(page, page + size, tokens->begin() + dst * size);
  };
  for (const PageCopy& copy : copies) {
    move(copy.src, copy.dst, &tokens_);
    if (script_.window > 0) move(copy.window_src, copy.window_dst, &window_tokens_);
  }
}

LogitsView ScriptedModel::Forward(const StepInput& input) {
  ++num_forwards_;
  const int64_t step_us =
      script_.step_us + script_.token_us * static_cast<int64_t>(input.ids.size());
  if (step_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(step_us));
  if (script_.fail_at_step > 0 && num_forwards_ >= script_.fail_at_step &&
      num_forwards_ < script_.fail_at_step + script_.fail_steps) {
    throw std::runtime_error("scripted failure of step " + std::to_string(num_forwards_));
  }
  Store(input);
  const int64_t num_rows = static_cast<int64_t>(input.out_rows.size());
  logits_.resize(num_rows * script_.vocab_size);
  for (int64_t i = 0; i < num_rows; ++i) {
    FillRow(input, input.out_rows[i], logits_.data() + i * script_.vocab_size);
  }
  return {logits_.data(), num_rows, script_.vocab_size};
}

void ScriptedModel::Store(const StepInput& input) {
  for (size_t row = 0; row < input.ids.size(); ++row) {
    tokens_.at(input.slots[row]) = input.ids[row];
    if (script_.window > 0) window_tokens_.at(input.window_slots.at(row)) = input.ids[row];
  }
}

void ScriptedModel::FillRow(const StepInput& input, int32_t row, float* logits) const {
  // The sequence that owns the row is the last one that begins at or before it.
  const auto after = std::upper_bound(input.q_indptr.begin(), input.q_indptr.end(), row);
  const int64_t sequence = after - input.q_indptr.begin() - 1;
  const int32_t first_page = input.page_indptr.at(sequence);
  const int32_t length = input.positions[row] + 1;
  const int32_t seen_from = script_.window > 0 ? length - script_.window : length;
  const auto token = [&](int32_t i) {
    const bool seen = i >= seen_from;
    const int64_t page =
        (seen ? input.window_page_ids : input.page_ids).at(first_page + i / script_.page_size);
    return (seen ? window_tokens_ : tokens_).at(page * script_.page_size + i % script_.page_size);
  };
  uint32_t hash = 2166136261U;
  int32_t last = kUnwritten;
  for (int32_t i = 0; i < length; ++i) {
    last = token(i);
    hash = (hash ^ static_cast<uint32_t>(last)) * 16777619U;
  }
  const bool poisoned = script_.poison_id >= 0 && last == script_.poison_id;
  const uint32_t choice = hash >> 16;
  const bool ends = script_.eos_id >= 0 && script_.eos_every > 0 && choice % script_.eos_every == 0;
  const int32_t next =
      ends ? script_.eos_id : script_.first_id + static_cast<int32_t>(choice % script_.num_ids);
  const float rest = poisoned ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  std::fill(logits, logits + script_.vocab_size, rest);
  logits[next] = kCertain;
}

}  // namespace cupola
