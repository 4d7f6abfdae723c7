// The thread of an engine: how it starts, waits, shows that it lives, fails and ends.
//
// What the engine of a decoder and that of an encoder share. It knows neither commands nor results:
// its owner pushes commands to a queue of its own and wakes the thread, which serves them until it
// is asked to stop. The owner calls Stop before it goes.
#ifndef CUPOLA_ENGINE_SERVICE_THREAD_H_
#define CUPOLA_ENGINE_SERVICE_THREAD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "support/event_fd.h"

namespace cupola {

class ServiceThread {
 public:
  ServiceThread() = default;
  ServiceThread(const ServiceThread&) = delete;
  ServiceThread& operator=(const ServiceThread&) = delete;

  // Starts the thread, called `name`, which runs `set_up` and then `serve`. Returns when `set_up`
  // has, and throws what it threw.
  void Start(const char* name, std::function<void()> set_up, std::function<void()> serve);

  // ---- For any thread --------------------------------------------------------------------------

  // Whether new work is to be refused: because nobody would serve it, or because it drains.
  bool closed() const { return stop_ || dead_; }
  bool draining() const { return draining_; }
  void Drain() { draining_ = true; }
  // Counts one more piece of accepted work, unless `most` are unsettled already.
  bool Admit(int64_t most);
  int64_t num_accepted() const { return num_accepted_; }
  void Wake() { wake_.Signal(); }
  // Seconds since the last sign of life; 0 while there is nothing to do.
  double age() const;
  // False once it has given up; `failure` then says why.
  bool alive() const { return !dead_; }
  std::string failure() const;

  // Asks the thread to end and waits for it. `release` runs once, when it has.
  void Stop(const std::function<void()>& release);
  // Whether the thread has served its last command. What is pushed afterwards is for `InItsPlace`.
  bool ended() const { return ended_; }
  // Runs `work` in the calling thread, one at a time, when the thread has ended.
  void InItsPlace(const std::function<void()>& work);

  // ---- For the thread itself --------------------------------------------------------------------

  bool stop_asked() const { return stop_; }
  // Sleeps until Wake.
  void Wait();
  void GiveSignOfLife();
  // How much of the accepted work no longer counts as unsettled.
  void SetSettled(int64_t num_settled) { num_settled_ = num_settled; }
  // Counts a failed step; true after so many in a row that the next one would fail too.
  bool FailsForGood() { return ++num_failures_in_a_row_ >= kMaxFailuresInARow; }
  void Succeeded() { num_failures_in_a_row_ = 0; }
  void SetFailure(const std::string& message);
  // From here on it refuses all work, but runs on: it has to answer those accepted while it died.
  void Die() { dead_ = true; }

 private:
  static constexpr int32_t kMaxFailuresInARow = 3;

  EventFd wake_;
  std::atomic<int64_t> num_accepted_{0};
  std::atomic<int64_t> num_settled_{0};
  std::atomic<int64_t> sign_of_life_ns_{0};
  std::atomic<bool> idle_{false};
  std::atomic<bool> draining_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> ended_{false};
  std::atomic<bool> dead_{false};
  mutable std::mutex failure_mutex_;
  std::string failure_;
  std::mutex end_mutex_;  // one thread at a time joins, or works for the thread that has ended

  int32_t num_failures_in_a_row_ = 0;  // the thread's own

  std::thread thread_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_SERVICE_THREAD_H_
