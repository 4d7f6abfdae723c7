#include "engine/page_ledger.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace cupola {

PageLedger::PageLedger(const Limits& limits)
    : limits_(limits), pool_(limits.num_pages), cache_(limits.page_size, &pool_) {}

int32_t PageLedger::num_pinned() const {
  int32_t count = 0;
  for (const PinnedPrefix& pin : pins_) count += static_cast<int32_t>(pin.pages.size());
  return count;
}

// ---- Finding ------------------------------------------------------------------------------------

const PrefixCache::Found& PageLedger::Find(const Request& request) {
  const int32_t begin = request.num_indexed * limits_.page_size;
  const int32_t count = limits_.prefix_cache ? request.max_reused() - begin : 0;
  if (count > 0) {
    cache_.Find(request.cache_seed, LastIndexed(request), request.tokens.data() + begin, count,
                &found_);
  } else {
    found_ = {};
  }
  return found_;
}

int32_t PageLedger::NumUnheld(const PrefixCache::Found& found) const {
  // Nobody holds a page whose predecessor nobody holds.
  const auto held = [this](int32_t page) { return pool_.holders(page) > 0; };
  const auto first = std::partition_point(found.pages.begin(), found.pages.end(), held);
  return static_cast<int32_t>(found.pages.end() - first);
}

int32_t PageLedger::LastIndexed(const Request& request) const {
  return request.num_indexed == 0 ? PrefixCache::kNoPage : request.pages[request.num_indexed - 1];
}

// ---- A request's pages --------------------------------------------------------------------------

void PageLedger::Open(const PrefixCache::Found& found, Request* request) {
  for (int32_t page : found.pages) pool_.Hold(page);
  request->pages = found.pages;
  request->num_indexed = static_cast<int32_t>(found.pages.size());
  if (!request->started) counters_.queried_tokens += request->num_prompt;
  Advance(request->num_indexed * limits_.page_size, request);
  Grow(limits_.PagesFor(request->num_tokens()) - request->num_indexed, request);
}

void PageLedger::Reuse(Request* request) {
  for (int32_t page : Find(*request).pages) {
    pool_.Hold(page);
    pool_.Release(request->pages[request->num_indexed]);
    request->pages[request->num_indexed++] = page;
  }
  Advance(request->num_indexed * limits_.page_size, request);
}

void PageLedger::CopyPartial(const std::vector<Request*>& others, Request* request,
                             std::vector<PageCopy>* copies) {
  if (!limits_.prefix_cache) return;
  const int32_t begin = request->num_indexed * limits_.page_size;
  const PrefixCache::Found& found = Find(*request);
  int32_t source = found.partial;
  int32_t common = found.partial_tokens;
  for (const Request* other : others) {
    const int32_t computed = other->num_computed - begin;
    const int32_t usable = std::min(CommonWithNextPage(*other, *request), computed);
    if (usable <= common) continue;
    source = other->pages[request->num_indexed];
    common = usable;
  }
  if (begin + common <= request->num_computed) return;
  copies->push_back({source, request->pages[request->num_indexed]});
  Advance(begin + common, request);
}

void PageLedger::Grow(int32_t count, Request* request) {
  for (int32_t i = 0; i < count; ++i) request->pages.push_back(Take());
}

int32_t PageLedger::Take() {
  if (pool_.num_free() == 0) cache_.Evict(1);
  return pool_.Take();
}

void PageLedger::Index(Request* request) {
  if (!limits_.prefix_cache) return;
  const int32_t num_full = request->num_computed / limits_.page_size;
  while (request->num_indexed < num_full) {
    const int32_t i = request->num_indexed;
    const int32_t mine = request->pages[i];
    const int32_t* tokens = request->tokens.data() + int64_t{i} * limits_.page_size;
    const int32_t known = cache_.Insert(request->cache_seed, LastIndexed(*request), tokens, mine);
    if (known != mine) {
      pool_.Hold(known);
      pool_.Release(mine);
      request->pages[i] = known;
    }
    ++request->num_indexed;
  }
}

void PageLedger::Close(Request* request) {
  if (request->num_indexed > 0) cache_.Touch(LastIndexed(*request));
  for (int32_t page : request->pages) pool_.Release(page);
  request->pages.clear();
  request->num_indexed = 0;
  request->num_computed = 0;
}

void PageLedger::Advance(int32_t num_computed, Request* request) {
  const int32_t gained = num_computed - request->num_computed;
  if (gained <= 0) return;
  request->num_computed = num_computed;
  if (request->preempted || request->num_generated() > 0) return;  // it had them once
  request->num_cached += gained;
  counters_.hit_tokens += gained;
}

// ---- Sharing ------------------------------------------------------------------------------------

int32_t PageLedger::NumShared(const Request& request) const {
  // Whoever holds a page holds those before it.
  const auto shared = [this](int32_t page) { return pool_.holders(page) > 1; };
  const auto begin = request.pages.begin();
  return static_cast<int32_t>(std::partition_point(begin, begin + request.num_indexed, shared) -
                              begin);
}

bool PageLedger::NextPageIsComputedBy(const Request& other, const Request& request) const {
  if (!limits_.prefix_cache) return false;
  const int32_t begin = request.num_indexed * limits_.page_size;
  const int32_t wanted = std::min(request.max_reused() - begin, limits_.page_size);
  const int32_t end = begin + wanted;
  if (request.num_computed >= end || other.num_computed >= end) return false;
  return CommonWithNextPage(other, request) >= wanted;
}

// Tokens of the request's first page that is not indexed yet that it can have from the same page of
// `other`, once they are computed there.
int32_t PageLedger::CommonWithNextPage(const Request& other, const Request& request) const {
  const bool same_path = other.num_indexed == request.num_indexed &&
                         other.cache_seed == request.cache_seed &&
                         LastIndexed(other) == LastIndexed(request);
  if (!same_path || &other == &request) return 0;
  const int32_t begin = request.num_indexed * limits_.page_size;
  const int32_t most =
      std::min({limits_.page_size, request.max_reused() - begin, other.num_tokens() - begin});
  if (most <= 0) return 0;
  const auto first = request.tokens.begin() + begin;
  return static_cast<int32_t>(
      std::mismatch(first, first + most, other.tokens.begin() + begin).first - first);
}

// ---- Pins ---------------------------------------------------------------------------------------

std::string PageLedger::Pin(const Request& request) {
  const int32_t count = request.num_prompt / limits_.page_size;
  if (!limits_.prefix_cache || count > request.num_indexed) {
    return "a prefix cannot be pinned: the prefix cache is off";
  }
  const int32_t most = pool_.num_total() / 2;
  if (num_pinned() + count > most) {
    return "a prefix of " + std::to_string(count) +
           " pages cannot be pinned: " + std::to_string(num_pinned()) + " are, of at most " +
           std::to_string(most);
  }
  PinnedPrefix pin{request.cache_seed, request.tokens, request.pages};
  pin.tokens.resize(int64_t{count} * limits_.page_size);
  pin.pages.resize(count);
  for (const PinnedPrefix& other : pins_) {
    if (other.seed == pin.seed && other.tokens == pin.tokens) return "";
  }
  for (int32_t page : pin.pages) pool_.Hold(page);
  pins_.push_back(std::move(pin));
  return "";
}

void PageLedger::Unpin(uint64_t seed, const std::vector<int32_t>& tokens) {
  const size_t whole = tokens.size() / limits_.page_size * limits_.page_size;
  for (auto pin = pins_.begin(); pin != pins_.end(); ++pin) {
    if (pin->seed != seed || pin->tokens.size() != whole) continue;
    if (!std::equal(pin->tokens.begin(), pin->tokens.end(), tokens.begin())) continue;
    for (int32_t page : pin->pages) pool_.Release(page);
    pins_.erase(pin);
    return;
  }
}

void PageLedger::DropPins() {
  for (const PinnedPrefix& pin : pins_) {
    for (int32_t page : pin.pages) pool_.Release(page);
  }
  pins_.clear();
}

// ---- All pages ----------------------------------------------------------------------------------

void PageLedger::Reset() {
  pins_.clear();
  cache_.Clear();
  pool_.Reset();
}

void PageLedger::Check(const std::vector<Request*>& running) const {
  std::vector<int32_t> holders(pool_.num_total(), 0);
  for (const Request* request : running) {
    for (int32_t page : request->pages) ++holders.at(page);
    for (int32_t i = 0; i < static_cast<int32_t>(request->pages.size()); ++i) {
      if (pool_.cached(request->pages[i]) == (i < request->num_indexed)) continue;
      throw std::logic_error("page ledger: request " + std::to_string(request->id) + " has " +
                             std::to_string(request->num_indexed) + " indexed pages, but page " +
                             std::to_string(i) + " of it is not so");
    }
  }
  for (const PinnedPrefix& pin : pins_) {
    for (int32_t page : pin.pages) ++holders.at(page);
  }
  pool_.Check(holders, cache_.CheckedPages());
}

}  // namespace cupola
