// The pages of the KV cache: which are free, which are taken. It knows no requests and no memory.
#ifndef CUPOLA_ENGINE_PAGE_POOL_H_
#define CUPOLA_ENGINE_PAGE_POOL_H_

#include <cstdint>
#include <vector>

namespace cupola {

class PagePool {
 public:
  explicit PagePool(int32_t num_pages);

  int32_t num_total() const { return static_cast<int32_t>(taken_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }

  // Appends `count` free pages to `*pages`; throws std::logic_error when there are fewer.
  void Take(int32_t count, std::vector<int32_t>* pages);
  // Gives all of `*pages` back and empties it; throws std::logic_error for a page that is free.
  void Give(std::vector<int32_t>* pages);
  // Makes every page free, whoever held it.
  void Reset();
  // Throws std::logic_error unless every page of `held` is taken, once, and no other page is.
  void CheckHeld(const std::vector<int32_t>& held) const;

 private:
  std::vector<int32_t> free_;  // a stack: the page given back last is the warmest
  std::vector<bool> taken_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_PAGE_POOL_H_
