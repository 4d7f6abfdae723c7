#include "engine/page_pool.h"

#include <stdexcept>
#include <string>

#include "support/failpoint.h"

namespace cupola {

PagePool::PagePool(int32_t num_pages) : taken_(num_pages, false) { Reset(); }

void PagePool::Take(int32_t count, std::vector<int32_t>* pages) {
  Failpoint("allocate");
  if (count > num_free()) {
    throw std::logic_error("page pool: " + std::to_string(count) + " pages wanted, " +
                           std::to_string(num_free()) + " free");
  }
  for (int32_t i = 0; i < count; ++i) {
    const int32_t page = free_.back();
    free_.pop_back();
    taken_[page] = true;
    pages->push_back(page);
  }
}

void PagePool::Give(std::vector<int32_t>* pages) {
  for (int32_t page : *pages) {
    if (!taken_.at(page)) {
      throw std::logic_error("page pool: page " + std::to_string(page) + " given back twice");
    }
    taken_[page] = false;
    free_.push_back(page);
  }
  pages->clear();
}

void PagePool::Reset() {
  free_.clear();
  for (int32_t page = num_total() - 1; page >= 0; --page) free_.push_back(page);
  taken_.assign(taken_.size(), false);
}

void PagePool::CheckHeld(const std::vector<int32_t>& held) const {
  if (held.size() + free_.size() != taken_.size()) {
    throw std::logic_error("page pool: " + std::to_string(free_.size()) + " free + " +
                           std::to_string(held.size()) +
                           " held != " + std::to_string(taken_.size()) + " pages");
  }
  std::vector<bool> seen(taken_.size(), false);
  for (int32_t page : held) {
    if (!taken_.at(page) || seen[page]) {
      throw std::logic_error("page pool: page " + std::to_string(page) + " is held " +
                             (seen[page] ? "twice" : "but free"));
    }
    seen[page] = true;
  }
}

}  // namespace cupola
