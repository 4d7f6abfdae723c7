// A number that threads wait to see change: a bounded spin first, then sleep.
//
// A spin is what a wait of microseconds wants, and sleep what all others do: whoever spins takes
// the processor from the thread that it waits for, if the two share one.
#ifndef CUPOLA_SUPPORT_GATE_H_
#define CUPOLA_SUPPORT_GATE_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace cupola {

class Gate {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }

  // Adds one; what was written before is seen by those who wait. Any thread.
  void Open();
  // Only while nobody waits.
  void Reset(uint32_t value) { value_.store(value, std::memory_order_relaxed); }

  // Returns once the value is not `seen` any more; sleeps if that takes longer than `spin_ns`.
  void WaitWhile(uint32_t seen, int64_t spin_ns);

 private:
  bool SpinWhile(uint32_t seen, int64_t spin_ns) const;

  alignas(64) std::atomic<uint32_t> value_{0};
  std::atomic<int32_t> num_sleepers_{0};
  alignas(64) std::mutex mutex_;
  std::condition_variable opened_;
};

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_GATE_H_
