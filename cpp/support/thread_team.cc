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

void Bind(pthread_t thread, int processor) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  pthread_setaffinity_np(thread, sizeof(one), &one);  // where it is not allowed, it is not bound
}

}  // namespace

ThreadTeam::ThreadTeam(const TeamOptions& options) : spin_ns_(options.spin_ns) {
  const std::vector<int> processors = AllowedProcessors();
  const size_t available = std::max<size_t>(processors.size(), 1);
  const size_t size = options.num_threads > 0 ? options.num_threads : available;
  for (size_t i = 0; i < size; ++i) workers_.push_back(std::make_unique<Worker>());
  for (size_t i = 1; i < size; ++i) {
    workers_[i]->thread = std::thread(&ThreadTeam::Loop, this, static_cast<int32_t>(i));
  }
  if (!options.bind || processors.empty()) return;
  for (size_t i = 0; i < size; ++i) {
    const pthread_t thread = i == 0 ? pthread_self() : workers_[i]->thread.native_handle();
    Bind(thread, processors[i % available]);
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
  num_workers_ = std::clamp(num_workers, 1, size());
  task_ = task;
  context_ = context;
  begin_ns_ = WallNs();
  for (int32_t i = 1; i < num_workers_; ++i) workers_[i]->begin.Open();
  Work(0);
  for (int32_t i = 0; i < num_workers_; ++i) {
    if (workers_[i]->status != 0) return workers_[i]->status;
  }
  return 0;
}

void ThreadTeam::Barrier() {
  // Both read before arriving: after that the others may go on, even to the next task.
  const int32_t num_workers = num_workers_;
  const uint32_t turn = turn_.value();
  if (num_workers == 1) return;
  if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_workers) {
    num_arrived_.store(0, std::memory_order_relaxed);
    turn_.Open();
  } else {
    turn_.WaitWhile(turn, kBarrierSpinNs);
  }
}

int64_t ThreadTeam::stalled_ns() const {
  int64_t stalled = workers_[0]->stalled_ns;
  for (int32_t i = 1; i < num_workers_; ++i) stalled = std::min(stalled, workers_[i]->stalled_ns);
  return stalled;
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
  const int64_t cpu_begin = ThreadCpuNs();
  self.status = task_(worker, context_);
  // Since the task was given, not since this thread took it up: it may have waited for a processor.
  self.stalled_ns = (WallNs() - begin_ns_) - (ThreadCpuNs() - cpu_begin);
  Barrier();
}

}  // namespace cupola
