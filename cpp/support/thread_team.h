// A few threads that work on one task together, in stages with barriers between.
//
// The caller of Run is worker 0, so that a team of one is no thread at all. Between two tasks the
// others spin for a bounded time and then sleep: a team without work burns no processor. A team
// belongs to one calling thread.
#ifndef CUPOLA_SUPPORT_THREAD_TEAM_H_
#define CUPOLA_SUPPORT_THREAD_TEAM_H_

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "support/gate.h"

namespace cupola {

struct TeamOptions {
  int32_t num_threads = 0;  // 0: one for each processor that the process may use
  bool bind = false;        // each to a processor of its own, the calling thread too
  int64_t spin_ns = 0;      // how long a thread spins for the next task before it sleeps
};

class ThreadTeam {
 public:
  // One worker's part of a task: 0, or what went wrong.
  using Task = int (*)(int32_t worker, void* context);

  explicit ThreadTeam(const TeamOptions& options);
  ~ThreadTeam();

  // Threads that there are, the caller included.
  int32_t size() const { return static_cast<int32_t>(workers_.size()); }

  // Runs task(0) .. task(num_workers - 1) at the same time and waits for all of them; num_workers
  // is at most size(). Returns what a worker returned that was not 0.
  int Run(int32_t num_workers, Task task, void* context);

  // Waits until every worker of the running task is here; each comes as often as the others.
  void Barrier(int32_t worker);

  // For how long every worker of the last task was off its processor, at least: because another
  // process had it, or asleep at a barrier because this happened to somebody else.
  int64_t stalled_ns() const;

 private:
  struct alignas(64) Worker {
    Gate begin;    // opens when there is a task, and at the end
    Gate arrived;  // opens when this worker arrives at a barrier: nobody else writes there
    int64_t stalled_ns = 0;
    int status = 0;
    bool spread = false;  // it is bound, until it has woken up
    std::thread thread;
  };

  void Spread(int32_t first, int32_t last);
  void Loop(int32_t worker);
  void Work(int32_t worker);

  const bool bind_;
  const int64_t spin_ns_;
  const std::vector<int> processors_;
  std::vector<std::unique_ptr<Worker>> workers_;
  bool stop_ = false;

  // The task at hand, written before the gates open.
  int32_t num_workers_ = 1;
  Task task_ = nullptr;
  void* context_ = nullptr;
  int64_t begin_ns_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_THREAD_TEAM_H_
