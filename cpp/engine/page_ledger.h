// The pages of requests: which they hold, which they share, and which can be found again.
//
// It owns the pool, the prefix cache and the pins. It knows a request's tokens and pages; who runs,
// and when, is the scheduler's. Where layers see only a window of the context, it owns their places
// too: a prefix is found as far as what these layers see of it is still there. A prefix that comes
// from elsewhere would be an addition here.
#ifndef CUPOLA_ENGINE_PAGE_LEDGER_H_
#define CUPOLA_ENGINE_PAGE_LEDGER_H_

#include <cstdint>
#include <list>
#include <string>
#include <vector>

#include "engine/limits.h"
#include "engine/page_pool.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/window_places.h"
#include "model/step_input.h"

namespace cupola {

// Counts since the start.
struct PrefixCounters {
  int64_t queried_tokens = 0;  // of prompts
  int64_t hit_tokens = 0;      // of these, found
};

class PageLedger {
 public:
  explicit PageLedger(const Limits& limits);

  const PagePool& pool() const { return pool_; }
  const WindowPlaces& window() const { return window_; }
  const PrefixCounters& counters() const { return counters_; }
  int64_t num_evicted() const { return cache_.num_evicted(); }
  int32_t num_pinned() const;

  // Looks up what is cached of the request's tokens beyond what it has. What it finds is valid
  // until the next call of any other method that is not const.
  const PrefixCache::Found& Find(const Request& request);
  // Of the pages found, how many nobody holds: to share them makes fewer pages available.
  int32_t NumUnheld(const PrefixCache::Found& found) const;

  // Gives a request that holds no pages those that were found, and fresh ones for its other tokens.
  void Open(const PrefixCache::Found& found, Request* request);
  // Exchanges reserved pages of the request for whole pages that have been cached meanwhile.
  void Reuse(Request* request);
  // Copies the beginning of the request's next page from a page that begins alike: of the cache, or
  // of one of `others`, all of which run. Appends to `*copies`.
  void CopyPartial(const std::vector<Request*>& others, Request* request,
                   std::vector<PageCopy>* copies);
  // Takes `count` more pages for the request; there are as many available.
  void Grow(int32_t count, Request* request);
  // Makes places for what the request's next `num_rows` rows see and write through the window.
  void OpenWindow(int32_t num_rows, Request* request);
  // Makes the pages that the request has filled and computed known to others, and gives up the
  // places of those that it sees no more. Where another request was first, its page takes the place
  // of this one's.
  void Index(Request* request);
  // Takes all pages back.
  void Close(Request* request);

  // Leading pages of the request that others hold too.
  int32_t NumShared(const Request& request) const;
  // Whether `other`, which runs, will compute pages that `request` needs next: all of the next
  // page, or everything that `request` may take from others at all.
  bool NextPageIsComputedBy(const Request& other, const Request& request) const;

  // Holds the whole pages of the request's tokens, which are computed, until Unpin. An error is one
  // sentence; "" is success.
  std::string Pin(const Request& request);
  void Unpin(uint64_t seed, const std::vector<int32_t>& tokens);
  // Lets all pins go.
  void DropPins();

  // Takes everything back, whoever held it, and forgets it.
  void Reset();
  // Throws std::logic_error unless requests, pins and cache together account for every page.
  void Check(const std::vector<Request*>& running) const;

 private:
  struct PinnedPrefix {
    uint64_t seed;
    std::vector<int32_t> tokens;  // whole pages
    std::vector<int32_t> pages;
    int32_t window_begin;  // the first page whose place it keeps
  };

  void Drop(const PinnedPrefix& pin);
  int32_t NumWindowPinned() const;
  int32_t LastIndexed(const Request& request) const;
  int32_t CommonWithNextPage(const Request& other, const Request& request) const;
  int32_t Take();
  void TrimToWindow(const Request& request);
  void SetWindow(int32_t begin, int32_t end, Request* request);
  void Exchange(int32_t index, int32_t page, Request* request);
  void Discard(int32_t page);
  void Advance(int32_t num_computed, Request* request);

  const Limits limits_;
  PagePool pool_;
  PrefixCache cache_;
  WindowPlaces window_;
  PrefixCache::Found found_;
  std::list<PinnedPrefix> pins_;
  PrefixCounters counters_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_PAGE_LEDGER_H_
