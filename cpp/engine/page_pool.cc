#include "engine/page_pool.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "support/failpoint.h"

namespace cupola {

namespace {

[[noreturn]] void Fail(int32_t page, const std::string& what) {
  throw std::logic_error("page pool: page " + std::to_string(page) + " " + what);
}

}  // namespace

PagePool::PagePool(int32_t num_pages) : uses_(num_pages) { Reset(); }

int32_t PagePool::Take() {
  Failpoint("allocate");
  if (free_.empty()) throw std::logic_error("page pool: a page is wanted, but none is free");
  const int32_t page = free_.back();
  free_.pop_back();
  uses_[page].holders = 1;
  return page;
}

void PagePool::Hold(int32_t page) {
  Use& use = uses_.at(page);
  if (use.holders == 0) {
    if (!use.cached) Fail(page, "is free, but shall get a holder");
    --num_evictable_;
  }
  ++use.holders;
}

void PagePool::Release(int32_t page) {
  Use& use = uses_.at(page);
  if (use.holders == 0) Fail(page, "is given back, but nobody holds it");
  if (--use.holders > 0) return;
  if (use.cached) {
    ++num_evictable_;
  } else {
    free_.push_back(page);
  }
}

void PagePool::Cache(int32_t page) {
  Use& use = uses_.at(page);
  if (use.cached || use.holders == 0) Fail(page, "cannot be cached: it is already, or it is free");
  use.cached = true;
  ++num_cached_;
}

void PagePool::Uncache(int32_t page) {
  Use& use = uses_.at(page);
  if (!use.cached) Fail(page, "is not cached, but shall be forgotten");
  use.cached = false;
  --num_cached_;
  if (use.holders > 0) return;
  --num_evictable_;
  free_.push_back(page);
}

void PagePool::Reset() {
  uses_.assign(uses_.size(), Use());
  free_.clear();
  for (int32_t page = num_total() - 1; page >= 0; --page) free_.push_back(page);
  num_evictable_ = 0;
  num_cached_ = 0;
}

void PagePool::Check(const std::vector<int32_t>& holders,
                     const std::vector<int32_t>& cached) const {
  std::vector<Use> expected(uses_.size());
  for (size_t page = 0; page < expected.size(); ++page) expected[page].holders = holders.at(page);
  for (int32_t page : cached) {
    if (expected.at(page).cached) Fail(page, "is twice in the prefix cache");
    expected[page].cached = true;
  }
  int32_t num_free = 0;
  int32_t num_evictable = 0;
  for (int32_t page = 0; page < num_total(); ++page) {
    const Use& use = expected[page];
    if (use.holders != uses_[page].holders || use.cached != uses_[page].cached) {
      Fail(page, "has " + std::to_string(use.holders) + " holders, but " +
                     std::to_string(uses_[page].holders) + " are counted" +
                     (use.cached != uses_[page].cached ? "; or it is wrongly cached" : ""));
    }
    if (use.holders == 0) ++(use.cached ? num_evictable : num_free);
  }
  std::vector<int32_t> free = free_;
  std::sort(free.begin(), free.end());
  const bool distinct = std::adjacent_find(free.begin(), free.end()) == free.end();
  if (!distinct || num_free != this->num_free() || num_evictable != num_evictable_ ||
      static_cast<int32_t>(cached.size()) != num_cached_) {
    throw std::logic_error("page pool: " + std::to_string(this->num_free()) + " free + " +
                           std::to_string(num_evictable_) + " cached only are counted, but it is " +
                           std::to_string(num_free) + " + " + std::to_string(num_evictable));
  }
}

}  // namespace cupola
