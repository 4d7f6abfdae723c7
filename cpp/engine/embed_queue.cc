#include "engine/embed_queue.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace cupola {

int64_t EmbedQueue::num_running() const {
  return std::count_if(works_.begin(), works_.end(),
                       [](const Work& work) { return work.next > 0; });
}

void EmbedQueue::Add(EmbedJob job) {
  Work work;
  work.vectors.resize(job.num_texts() * info_.dimensions);
  work.job = std::move(job);
  works_.push_back(std::move(work));
  if (works_.back().job.num_texts() == 0) End(std::prev(works_.end()), EmbedEnd::kDone, "");
}

std::vector<EmbedQueue::Pick> EmbedQueue::Schedule() {
  std::vector<Pick> picks;
  int32_t room = info_.max_step_tokens;
  const auto full = [&] { return picks.size() >= static_cast<size_t>(info_.max_batch); };
  for (bool progress = true; progress && !full();) {
    progress = false;
    for (Work& work : works_) {
      if (full()) break;
      if (work.next == work.job.num_texts() || LengthOf(work, work.next) > room) continue;
      room -= LengthOf(work, work.next);
      picks.push_back({work.job.id, work.next++});
      progress = true;
    }
  }
  // Who is first is served in any case; everybody is first in turn.
  if (!works_.empty()) works_.splice(works_.end(), works_, works_.begin());
  return picks;
}

EncoderInput EmbedQueue::InputOf(const std::vector<Pick>& picks) const {
  EncoderInput input;
  input.q_indptr.push_back(0);
  for (const Pick& pick : picks) {
    const auto work = std::find_if(works_.begin(), works_.end(),
                                   [&](const Work& work) { return work.job.id == pick.job; });
    const EmbedJob& job = work->job;
    const int32_t begin = job.offsets[pick.text], end = job.offsets[pick.text + 1];
    input.ids.insert(input.ids.end(), job.tokens.begin() + begin, job.tokens.begin() + end);
    for (int32_t i = 0; i < end - begin; ++i) input.positions.push_back(i);
    input.q_indptr.push_back(input.q_indptr.back() + end - begin);
    input.types.resize(input.ids.size(), 0);
    if (!job.types.empty()) {
      std::copy(job.types.begin() + begin, job.types.begin() + end,
                input.types.end() - (end - begin));
    }
  }
  return input;
}

void EmbedQueue::Commit(const std::vector<Pick>& picks, const float* vectors) {
  for (const Pick& pick : picks) {
    const float* vector = vectors;
    vectors += info_.dimensions;
    const auto work = Find(pick.job);
    if (work == works_.end()) continue;
    if (!std::all_of(vector, vector + info_.dimensions, [](float x) { return std::isfinite(x); })) {
      End(work, EmbedEnd::kFailed, "the model's output is not finite");
      continue;
    }
    std::copy(vector, vector + info_.dimensions,
              work->vectors.begin() + pick.text * info_.dimensions);
    counters_.tokens += LengthOf(*work, pick.text);
    if (++work->done == work->job.num_texts()) End(work, EmbedEnd::kDone, "");
  }
}

void EmbedQueue::End(int64_t id, EmbedEnd end, const std::string& error) {
  const auto work = Find(id);
  if (work != works_.end()) End(work, end, error);
}

void EmbedQueue::EndAll(EmbedEnd end, const std::string& error) {
  while (!works_.empty()) End(works_.begin(), end, error);
}

std::vector<EmbedResult> EmbedQueue::TakeResults() { return std::exchange(results_, {}); }

std::list<EmbedQueue::Work>::iterator EmbedQueue::Find(int64_t id) {
  return std::find_if(works_.begin(), works_.end(),
                      [id](const Work& work) { return work.job.id == id; });
}

void EmbedQueue::End(std::list<Work>::iterator work, EmbedEnd end, const std::string& error) {
  EmbedResult result{work->job.id, end, error, {}};
  if (end == EmbedEnd::kDone) result.vectors = std::move(work->vectors);
  results_.push_back(std::move(result));
  counters_.finished += end == EmbedEnd::kDone;
  counters_.aborted += end == EmbedEnd::kAborted;
  counters_.failed += end == EmbedEnd::kFailed;
  works_.erase(work);
}

int32_t EmbedQueue::LengthOf(const Work& work, int64_t text) {
  return work.job.offsets[text + 1] - work.job.offsets[text];
}

}  // namespace cupola
