// How many threads pay off while other processes want the processors too.
//
// Work is dealt out evenly and everybody waits for the last one, so a thread that has to share its
// processor stalls all. With n threads, doing without one costs a 1/n th of the speed: a larger
// part of the time spent stalled is worth giving one up. Now and then one more is tried again, less
// often each time that this goes wrong.
//
// It reads no clock, so that it can be tested.
#ifndef CUPOLA_SUPPORT_THREAD_BUDGET_H_
#define CUPOLA_SUPPORT_THREAD_BUDGET_H_

#include <cstdint>

namespace cupola {

class ThreadBudget {
 public:
  explicit ThreadBudget(int32_t most) : most_(most), threads_(most) {}

  // The number of threads for a task that begins now.
  int32_t Choose(int64_t now_ns);

  // What became of it: its end, its length, and for how long it stalled (ThreadTeam::stalled_ns).
  void Record(int64_t now_ns, int64_t wall_ns, int64_t stalled_ns);

 private:
  void Use(int32_t threads, int64_t now_ns);

  const int32_t most_;
  int32_t threads_;
  bool climbing_ = false;    // one more than before, not one fewer
  int64_t since_ns_ = 0;     // when this number of threads was chosen
  int64_t patience_ns_ = 0;  // from then until one more is tried
  double excess_ns_ = 0;  // time stalled beyond what is tolerable, less what was not stalled since
};

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_THREAD_BUDGET_H_
