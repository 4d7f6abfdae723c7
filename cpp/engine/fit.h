// The one answer to "does it fit, can it ever fit", in pages.
//
// Asked when a request arrives (of an empty pool), when it is admitted, when it resumes after a
// preemption and when it grows by a page. Because all four ask here, an accepted request can always
// be served at least when it is alone: that is why the engine cannot livelock.
#ifndef CUPOLA_ENGINE_FIT_H_
#define CUPOLA_ENGINE_FIT_H_

#include <cstdint>

namespace cupola {

enum class Fit { kNow, kLater, kNever };

struct Demand {
  int64_t pages_now = 0;     // pages to take at once, beyond those it has
  int64_t pages_at_end = 0;  // most pages that it will ever hold
  int64_t peak = 0;          // most pages that it and all who run are expected to hold at once
};

struct Supply {
  int64_t total = 0;
  int64_t available = 0;  // free, or cached and held by nobody
};

Fit Judge(const Demand& demand, const Supply& supply);

}  // namespace cupola

#endif  // CUPOLA_ENGINE_FIT_H_
