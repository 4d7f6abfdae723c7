// One thread that works beside its owner on batches of small, independent jobs.
//
// The owner begins a batch, does something else, and then takes a hand in what is left of it. It
// knows nothing of what a job is.
#ifndef CUPOLA_SUPPORT_WORKER_H_
#define CUPOLA_SUPPORT_WORKER_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace cupola {

class Worker {
 public:
  using Job = std::function<void(int32_t)>;

  // The thread begins with the first batch. `name`: at most 15 characters, for debuggers.
  explicit Worker(const char* name) : name_(name) {}
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Begins job(0) .. job(count - 1), in any order and on both threads; returns at once. Jobs must
  // not throw. The batch before must be finished.
  void Begin(int32_t count, Job job);
  // Works along until all jobs of the batch are done.
  void Finish();

 private:
  void Run();
  void DoJobs();

  const char* const name_;
  Job job_;
  int32_t count_ = 0;
  std::atomic<int32_t> next_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool waiting_ = false;  // a batch has begun that the thread has not seen
  bool working_ = false;  // the thread is at it
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_WORKER_H_
