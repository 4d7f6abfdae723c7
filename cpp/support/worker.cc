#include "support/worker.h"

#include <utility>

#include "support/thread_setup.h"

namespace cupola {

Worker::~Worker() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Worker::Begin(int32_t count, Job job) {
  if (!thread_.joinable()) thread_ = std::thread(&Worker::Run, this);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    job_ = std::move(job);
    count_ = count;
    next_ = 0;
    waiting_ = true;
  }
  changed_.notify_all();
}

void Worker::Finish() {
  DoJobs();
  std::unique_lock<std::mutex> lock(mutex_);
  waiting_ = false;  // if the thread has not woken yet, there is nothing left for it
  changed_.wait(lock, [this] { return !working_; });
}

void Worker::Run() {
  SetUpThread(name_);
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return waiting_ || stop_; });
    if (stop_) return;
    waiting_ = false;
    working_ = true;
    lock.unlock();
    DoJobs();
    lock.lock();
    working_ = false;
    changed_.notify_all();
  }
}

void Worker::DoJobs() {
  for (int32_t i = next_++; i < count_; i = next_++) job_(i);
}

}  // namespace cupola
