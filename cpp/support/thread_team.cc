#include "support/thread_team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>

#include "support/clock.h"
#include "support/thread_setup.h"

namespace cupola {

namespace {

// Shares of a stage differ by less than this, unless a worker has lost its processor.
constexpr int64_t kBarrierSpinNs = 50000;

// The processors that the calling thread may run on.
std::vector<int> AllowedProcessors() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  std::vector<int> processors;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return processors;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &allowed)) processors.push_back(i);
  }
  return processors;
}

// Where it is not allowed, nothing changes.
void Bind(pthread_t thread, const std::vector<int>& processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int processor : processors) CPU_SET(processor, &set);
  pthread_setaffinity_np(thread, sizeof(set), &set);
}

}  // namespace

ThreadTeam::ThreadTeam(const TeamOptions& options)
    : bind_(options.bind), spin_ns_(options.spin_ns), processors_(AllowedProcessors()) {
  const size_t available = std::max<size_t>(processors_.size(), 1);
  const size_t size = options.num_threads > 0 ? options.num_threads : available;
  for (size_t i = 0; i < size; ++i) workers_.push_back(std::make_unique<Worker>());
  for (size_t i = 1; i < size; ++i) {
    workers_[i]->thread = std::thread(&ThreadTeam::Loop, this, static_cast<int32_t>(i));
  }
  if (!bind_ || processors_.empty()) return;
  for (size_t i = 0; i < size; ++i) {
    const pthread_t thread = i == 0 ? pthread_self() : workers_[i]->thread.native_handle();
    Bind(thread, {processors_[i % available]});
  }
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  for (auto& worker : workers_) worker->begin.Open();
  for (auto& worker : workers_) {
    if (worker->thread.joinable()) worker->thread.join();
  }
}

int ThreadTeam::Run(int32_t num_workers, Task task, void* context) {
  num_workers = std::clamp(num_workers, 1, size());
  if (num_workers > num_workers_ && !bind_) Spread(num_workers_, num_workers);
  num_workers_ = num_workers;
  task_ = task;
  context_ = context;
  begin_ns_ = WallNs();
  const uint32_t barriers = workers_[0]->arrived.value();
  for (int32_t i = 1; i < num_workers_; ++i) {
    workers_[i]->arrived.Reset(barriers);  // it may have had no part in the last tasks
    workers_[i]->begin.Open();
  }
  Work(0);
  for (int32_t i = 0; i < num_workers_; ++i) {
    if (workers_[i]->status != 0) return workers_[i]->status;
  }
  return 0;
}

void ThreadTeam::Barrier(int32_t worker) {
  // Read before arriving: after that the others may go on, even to the next task.
  const int32_t num_workers = num_workers_;
  const uint32_t before = workers_[worker]->arrived.value();
  workers_[worker]->arrived.Open();
  for (int32_t i = 0; i < num_workers; ++i) {
    // Another one may be a barrier ahead, but never behind the last.
    if (i != worker) workers_[i]->arrived.WaitWhile(before, kBarrierSpinNs);
  }
}

int64_t ThreadTeam::stalled_ns() const {
  int64_t stalled = workers_[0]->stalled_ns;
  for (int32_t i = 1; i < num_workers_; ++i) stalled = std::min(stalled, workers_[i]->stalled_ns);
  return stalled;
}

// Lets workers that had no part in the last task wake up away from the caller. Linux would wake
// them on its processor, where none is idle, and not see the mistake for as long as they wait in
// turns.
void ThreadTeam::Spread(int32_t first, int32_t last) {
  if (processors_.empty()) return;
  const auto here = std::find(processors_.begin(), processors_.end(), sched_getcpu());
  const size_t own = here - processors_.begin();
  for (int32_t i = first; i < last; ++i) {
    Bind(workers_[i]->thread.native_handle(), {processors_[(own + i) % processors_.size()]});
    workers_[i]->spread = true;
  }
}

void ThreadTeam::Loop(int32_t worker) {
  SetUpThread("cupola-worker");
  Gate& begin = workers_[worker]->begin;
  for (uint32_t seen = 0;; ++seen) {
    begin.WaitWhile(seen, spin_ns_);
    if (stop_) return;
    Work(worker);
  }
}

void ThreadTeam::Work(int32_t worker) {
  Worker& self = *workers_[worker];
  if (self.spread) {
    Bind(pthread_self(), processors_);  // it has woken up there; from now on it may go anywhere
    self.spread = false;
  }
  const int64_t cpu_begin = ThreadCpuNs();
  self.status = task_(worker, context_);
  // Since the task was given, not since this thread took it up: it may have waited for a processor.
  self.stalled_ns = (WallNs() - begin_ns_) - (ThreadCpuNs() - cpu_begin);
  Barrier(worker);
}

}  // namespace cupola
