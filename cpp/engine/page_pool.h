// The pages of the KV cache: who counts on which. It knows no requests, no tokens and no memory.
//
// A page has holders (running requests and pins) and may be cached (the prefix cache can find it).
// Held by nobody and not cached it is free; held by nobody but cached it can be evicted.
#ifndef CUPOLA_ENGINE_PAGE_POOL_H_
#define CUPOLA_ENGINE_PAGE_POOL_H_

#include <cstdint>
#include <vector>

namespace cupola {

class PagePool {
 public:
  explicit PagePool(int32_t num_pages);

  int32_t num_total() const { return static_cast<int32_t>(uses_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_evictable() const { return num_evictable_; }
  int32_t num_cached() const { return num_cached_; }
  int32_t num_held() const { return num_total() - num_free() - num_evictable_; }
  // What can be had without taking anything from a holder.
  int32_t num_available() const { return num_free() + num_evictable_; }

  int32_t holders(int32_t page) const { return uses_[page].holders; }
  bool cached(int32_t page) const { return uses_[page].cached; }

  // Takes a free page, for one holder. Like all that follow, throws std::logic_error for what
  // cannot be.
  int32_t Take();
  // One holder more, of a page that is held or cached; and one fewer.
  void Hold(int32_t page);
  void Release(int32_t page);
  // The prefix cache knows a page that is held; and forgets a page.
  void Cache(int32_t page);
  void Uncache(int32_t page);
  // Makes every page free, whoever held it.
  void Reset();
  // Throws std::logic_error unless page i has `holders[i]` holders, exactly the pages of `cached`
  // are cached, and free are exactly those that are neither.
  void Check(const std::vector<int32_t>& holders, const std::vector<int32_t>& cached) const;

 private:
  struct Use {
    int32_t holders = 0;
    bool cached = false;
  };

  std::vector<int32_t> free_;  // a stack: the page given back last is the warmest
  std::vector<Use> uses_;
  int32_t num_evictable_ = 0;
  int32_t num_cached_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_PAGE_POOL_H_
