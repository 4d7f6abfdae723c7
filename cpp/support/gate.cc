#include "support/gate.h"

#include "support/clock.h"

namespace cupola {

namespace {

constexpr int kPausesPerLook = 32;  // at the clock: half a microsecond

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

void Gate::Open() {
  // Both sides write one number and read the other, so this order must be the same for all.
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (num_sleepers_.load(std::memory_order_seq_cst) == 0) return;
  // Whoever counts as a sleeper holds the lock, or sleeps: nobody is between looking and sleeping.
  {
    const std::lock_guard<std::mutex> lock(mutex_);
  }
  opened_.notify_all();
}

void Gate::WaitWhile(uint32_t seen, int64_t spin_ns) {
  if (SpinWhile(seen, spin_ns)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  num_sleepers_.fetch_add(1, std::memory_order_seq_cst);
  opened_.wait(lock, [&] { return value_.load(std::memory_order_seq_cst) != seen; });
  num_sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

// True if the value changed in time.
bool Gate::SpinWhile(uint32_t seen, int64_t spin_ns) const {
  if (value() != seen) return true;
  if (spin_ns <= 0) return false;
  const int64_t end = WallNs() + spin_ns;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      Pause();
      if (value() != seen) return true;
    }
  } while (WallNs() < end);
  return false;
}

}  // namespace cupola
