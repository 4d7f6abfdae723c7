#include "support/thread_budget.h"

#include <algorithm>

namespace cupola {

namespace {

constexpr double kKeep = 0.75;      // of the last tasks' weight, with each new one
constexpr double kBreakEven = 0.8;  // below 1, because one thread fewer also stalls less often
constexpr int64_t kShortestPatienceNs = 20'000'000;
constexpr int64_t kLongestPatienceNs = 1'000'000'000;

}  // namespace

int32_t ThreadBudget::Choose(int64_t now_ns) {
  if (threads_ < most_ && now_ns - since_ns_ >= patience_ns_) {
    if (climbing_) patience_ns_ = kShortestPatienceNs;  // the last attempt went well
    climbing_ = true;
    Use(threads_ + 1, now_ns);
  }
  return threads_;
}

void ThreadBudget::Record(int64_t now_ns, int64_t wall_ns, int64_t stalled_ns) {
  wall_ns_ = wall_ns_ * kKeep + static_cast<double>(wall_ns);
  stalled_ns_ = stalled_ns_ * kKeep + static_cast<double>(stalled_ns);
  const bool stalls = stalled_ns_ * threads_ > wall_ns_ * kBreakEven;
  if (!stalls || threads_ == 1) return;
  // What went well for longer than the wait before it was no failed attempt.
  const bool failed = now_ns - since_ns_ < 2 * patience_ns_;
  patience_ns_ = failed ? std::min(2 * patience_ns_, kLongestPatienceNs) : kShortestPatienceNs;
  climbing_ = false;
  Use(threads_ - 1, now_ns);
}

void ThreadBudget::Use(int32_t threads, int64_t now_ns) {
  threads_ = threads;
  since_ns_ = now_ns;
  wall_ns_ = stalled_ns_ = 0;
}

}  // namespace cupola
