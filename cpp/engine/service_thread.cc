#include "engine/service_thread.h"

#include <exception>
#include <future>
#include <utility>

#include "support/clock.h"
#include "support/thread_setup.h"

namespace cupola {

void ServiceThread::Start(const char* name, std::function<void()> set_up,
                          std::function<void()> serve) {
  GiveSignOfLife();
  std::promise<void> started;
  std::future<void> ready = started.get_future();
  // The promise is the thread's: it still touches it when the caller knows already.
  thread_ = std::thread([this, name, set_up = std::move(set_up), serve = std::move(serve),
                         started = std::move(started)]() mutable {
    SetUpThread(name);
    try {
      set_up();
    } catch (...) {
      started.set_exception(std::current_exception());
      return;
    }
    started.set_value();
    serve();
    ended_ = true;
  });
  try {
    ready.get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

bool ServiceThread::Admit(int64_t most) {
  if (num_accepted_.fetch_add(1) - num_settled_ >= most) {
    --num_accepted_;
    return false;
  }
  // From here on a wait counts: an idle thread that does not wake up will look as old as it is.
  if (idle_) GiveSignOfLife();
  return true;
}

double ServiceThread::age() const {
  if (idle_ && num_accepted_ == num_settled_) return 0;
  // The sign is read before the clock: the other way round, a step that ends between the two reads
  // makes the age negative.
  const int64_t last_sign_ns = sign_of_life_ns_;
  return static_cast<double>(WallNs() - last_sign_ns) * 1e-9;
}

std::string ServiceThread::failure() const {
  const std::lock_guard<std::mutex> lock(failure_mutex_);
  return failure_;
}

void ServiceThread::Stop(const std::function<void()>& release) {
  stop_ = true;
  Wake();
  const std::lock_guard<std::mutex> lock(end_mutex_);
  if (!thread_.joinable()) return;
  thread_.join();
  release();
}

void ServiceThread::InItsPlace(const std::function<void()>& work) {
  const std::lock_guard<std::mutex> lock(end_mutex_);
  work();
}

void ServiceThread::Wait() {
  idle_ = true;
  wake_.Wait();
  idle_ = false;
  GiveSignOfLife();
}

void ServiceThread::GiveSignOfLife() { sign_of_life_ns_ = WallNs(); }

void ServiceThread::SetFailure(const std::string& message) {
  const std::lock_guard<std::mutex> lock(failure_mutex_);
  failure_ = message;
}

}  // namespace cupola
