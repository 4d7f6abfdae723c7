// Clocks in nanoseconds.
#ifndef CUPOLA_SUPPORT_CLOCK_H_
#define CUPOLA_SUPPORT_CLOCK_H_

#include <time.h>

#include <cstdint>

namespace cupola {

inline int64_t ReadClockNs(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

// Time that passes.
inline int64_t WallNs() { return ReadClockNs(CLOCK_MONOTONIC); }

// Time that the calling thread has spent on a processor.
inline int64_t ThreadCpuNs() { return ReadClockNs(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_CLOCK_H_
