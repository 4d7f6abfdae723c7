#include "support/thread_budget.h"

#include <algorithm>

namespace cupola {

namespace {

// The part of the time, times the number of threads, above which a thread does not pay. Below 1,
// because with one thread fewer others stall less, too.
constexpr double kBreakEven = 0.7;
// So much more time stalled than that, and it is no accident: a time slice is 4 ms or less.
constexpr double kProofNs = 5e6;
constexpr int64_t kShortestPatienceNs = 50'000'000;
constexpr int64_t kLongestPatienceNs = 1'000'000'000;
constexpr int64_t kGrowth = 4;  // of patience; who is busy for long is found out in few attempts

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
  const double tolerable = static_cast<double>(wall_ns) * kBreakEven / threads_;
  excess_ns_ = std::max(0.0, excess_ns_ + static_cast<double>(stalled_ns) - tolerable);
  if (excess_ns_ < kProofNs || threads_ == 1) return;
  // What went well for longer than the wait before it was no failed attempt.
  const bool failed = now_ns - since_ns_ < 2 * patience_ns_;
  patience_ns_ =
      failed ? std::min(kGrowth * patience_ns_, kLongestPatienceNs) : kShortestPatienceNs;
  climbing_ = false;
  Use(threads_ - 1, now_ns);
}

void ThreadBudget::Use(int32_t threads, int64_t now_ns) {
  threads_ = threads;
  since_ns_ = now_ns;
  excess_ns_ = 0;
}

}  // namespace cupola
