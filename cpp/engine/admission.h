// Whether one more request can run beside those that do.
//
// It fits when there are pages for the tokens that it has, and when the predicted peak of all of
// them together stays within the pool. The prediction may be wrong: then somebody is preempted.
#ifndef CUPOLA_ENGINE_ADMISSION_H_
#define CUPOLA_ENGINE_ADMISSION_H_

#include <cstdint>
#include <vector>

#include "engine/fit.h"
#include "engine/limits.h"
#include "engine/page_ledger.h"
#include "engine/peak.h"
#include "engine/request.h"

namespace cupola {

class Admission {
 public:
  Admission(const Limits& limits, const PageLedger* ledger) : limits_(limits), ledger_(ledger) {}

  // `found` is what the ledger finds for `candidate`.
  Fit Ask(const Request& candidate, const PrefixCache::Found& found,
          const std::vector<Request*>& running);
  // A request ended by itself after so many tokens.
  void Record(int64_t length) { estimate_.Record(length); }

 private:
  static constexpr double kBusy = 0.85;   // of the pool in use: expect the worst
  static constexpr int64_t kMargin = 16;  // tokens beyond the estimate

  int64_t PredictedPages(const Request& candidate, int32_t num_shared,
                         const std::vector<Request*>& running);
  void Account(const Request& request, int64_t num_shared, bool busy);
  int64_t StepsLeft(const Request& request, bool busy) const;

  const Limits limits_;
  const PageLedger* const ledger_;
  OutputEstimate estimate_;
  std::vector<Load> loads_;  // of one prediction
  int64_t pages_at_end_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_ADMISSION_H_
