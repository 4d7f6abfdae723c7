// The engine's counters and gauges, as one snapshot a step that any thread can read.
#ifndef CUPOLA_ENGINE_STATS_H_
#define CUPOLA_ENGINE_STATS_H_

#include <cstdint>
#include <mutex>

#include "engine/scheduler.h"

namespace cupola {

struct EngineStats {
  SchedulerCounters counters;
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t pages_total = 0;
  int64_t pages_free = 0;    // held by nobody, though they may be cached
  int64_t pages_cached = 0;  // known to the prefix cache, held or not
  int64_t pages_pinned = 0;
  PrefixCounters prefix;
  int64_t evictions = 0;  // of pages
  int64_t steps = 0;
  double step_seconds = 0;  // sum over all steps
};

class StatsBoard {
 public:
  void Set(const EngineStats& stats) {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_ = stats;
  }
  EngineStats Get() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return stats_;
  }

 private:
  mutable std::mutex mutex_;
  EngineStats stats_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_STATS_H_
