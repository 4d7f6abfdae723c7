#include "engine/admission.h"

#include <algorithm>

namespace cupola {

Fit Admission::Ask(const Request& candidate, const PrefixCache::Found& found,
                   const std::vector<Request*>& running) {
  const PagePool& pool = ledger_->pool();
  const int32_t num_found = static_cast<int32_t>(found.pages.size());
  const int32_t num_unheld = ledger_->NumUnheld(found);
  const Demand demand{limits_.PagesFor(candidate.num_tokens()) - num_found,
                      limits_.PagesFor(candidate.max_cached_tokens()),
                      PredictedPages(candidate, num_found - num_unheld, running)};
  return Judge(demand, Supply{pool.num_total(), pool.num_available() - num_unheld});
}

// A page that several hold counts once, as one that stays; so does a pinned one.
int64_t Admission::PredictedPages(const Request& candidate, int32_t num_shared,
                                  const std::vector<Request*>& running) {
  const PagePool& pool = ledger_->pool();
  const bool busy = pool.num_held() >= kBusy * pool.num_total();
  int64_t constant = pool.num_held();
  loads_.clear();
  pages_at_end_ = 0;
  for (const Request* request : running) {
    const int32_t shared = ledger_->NumShared(*request);
    constant -= static_cast<int64_t>(request->pages.size()) - shared;
    Account(*request, shared, busy);
  }
  Account(candidate, num_shared, busy);
  const bool surely_fits = constant + pages_at_end_ <= pool.num_total();
  if (limits_.foresight == Foresight::kConservative || surely_fits) {
    return constant + pages_at_end_;
  }
  return constant + std::min(pages_at_end_, PredictPeak(&loads_) / limits_.page_size);
}

void Admission::Account(const Request& request, int64_t num_shared, bool busy) {
  // The last page of each may be filled to any degree, hence a page less a token more.
  const int64_t held =
      request.num_tokens() - num_shared * limits_.page_size + limits_.page_size - 1;
  loads_.push_back({held, StepsLeft(request, busy)});
  pages_at_end_ += limits_.PagesFor(request.max_cached_tokens()) - num_shared;
}

int64_t Admission::StepsLeft(const Request& request, bool busy) const {
  const int64_t most = request.max_cached_tokens() - request.num_tokens();
  if (limits_.foresight == Foresight::kOptimistic) {
    return std::min<int64_t>(most, limits_.page_size);
  }
  const int64_t generated = request.num_generated();
  // Without an id that stops it, it is known how long a request becomes.
  const int64_t expected = busy || request.stop_ids.empty()
                               ? request.max_tokens
                               : estimate_.Predict(generated, request.max_tokens) + kMargin;
  const int64_t growth = std::max<int64_t>(0, std::min(expected - generated - 1, most));
  return growth + (request.num_uncomputed() - 1) / limits_.max_step_tokens;
}

}  // namespace cupola
