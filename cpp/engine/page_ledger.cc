#include "engine/page_ledger.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace cupola {

PageLedger::PageLedger(const Limits& limits)
    : limits_(limits),
      pool_(limits.num_pages),
      cache_(limits.page_size, &pool_),
      window_(limits.num_window_pages, limits.num_pages) {
  if (limits.window > 0 && limits.num_window_pages < limits.MostWindowPages()) {
    throw std::logic_error("page ledger: " + std::to_string(limits.num_window_pages) +
                           " places in the window, but those who run may use " +
                           std::to_string(limits.MostWindowPages()));
  }
}

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
    if (limits_.window > 0) TrimToWindow(request);
  } else {
    found_ = {};
  }
  return found_;
}

// Leaves of what was found the longest beginning behind which all is there that the next row sees
// through the window.
void PageLedger::TrimToWindow(const Request& request) {
  const int32_t first = request.num_indexed;
  int32_t there = request.window_begin;  // all pages from here on have places
  int32_t usable = 0;
  for (int32_t i = 0; i < static_cast<int32_t>(found_.pages.size()); ++i) {
    if (!window_.has(found_.pages[i])) there = first + i + 1;
    const int32_t end = first + i + 1;
    if (there <= limits_.FirstInWindow(end * limits_.page_size)) usable = i + 1;
  }
  const bool whole = usable == static_cast<int32_t>(found_.pages.size());
  found_.pages.resize(usable);
  if (whole && found_.partial != PrefixCache::kNoPage && window_.has(found_.partial)) return;
  found_.partial = PrefixCache::kNoPage;
  found_.partial_tokens = 0;
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
  const PrefixCache::Found& found = Find(*request);
  if (found.pages.empty()) return;
  // What it has written of the next page is of no use now.
  SetWindow(request->window_begin, std::min(request->window_end, request->num_indexed), request);
  for (int32_t page : found.pages) Exchange(request->num_indexed++, page, request);
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
    const int32_t page = other->pages[request->num_indexed];
    if (limits_.window > 0 && !window_.has(page)) continue;
    source = page;
    common = usable;
  }
  if (begin + common <= request->num_computed) return;
  PageCopy copy{source, request->pages[request->num_indexed]};
  if (limits_.window > 0) {
    window_.Use(source);  // or its place might be the one that the request's page gets
    SetWindow(request->window_begin, request->num_indexed + 1, request);
    copy.window_src = window_.place(source);
    copy.window_dst = window_.place(copy.dst);
    window_.Release(source);
  }
  copies->push_back(copy);
  Advance(begin + common, request);
}

void PageLedger::Grow(int32_t count, Request* request) {
  for (int32_t i = 0; i < count; ++i) request->pages.push_back(Take());
}

int32_t PageLedger::Take() {
  if (pool_.num_free() == 0) cache_.Evict(1);
  const int32_t page = pool_.Take();
  if (limits_.window > 0) window_.Forget(page);
  return page;
}

// One holder less of a page. What nobody can find again needs no place.
void PageLedger::Discard(int32_t page) {
  pool_.Release(page);
  if (limits_.window > 0 && pool_.holders(page) == 0 && !pool_.cached(page)) window_.Forget(page);
}

// Puts a cached page of the same tokens where the request has one of its own.
void PageLedger::Exchange(int32_t index, int32_t page, Request* request) {
  const int32_t mine = request->pages[index];
  pool_.Hold(page);
  if (limits_.window > 0) {
    const bool used = request->window_begin <= index && index < request->window_end;
    if (used) window_.Release(mine);
    window_.Move(mine, page);
    if (used) window_.Use(page);
  }
  pool_.Release(mine);
  request->pages[index] = page;
}

// ---- The window ---------------------------------------------------------------------------------

void PageLedger::OpenWindow(int32_t num_rows, Request* request) {
  if (limits_.window == 0) return;
  const int32_t end = limits_.PagesFor(request->num_computed + num_rows);
  SetWindow(limits_.FirstInWindow(request->num_computed), std::max(end, request->window_end),
            request);
}

// Pages that come in before pages that go: a page in both keeps its place.
void PageLedger::SetWindow(int32_t begin, int32_t end, Request* request) {
  if (limits_.window == 0) return;
  const auto was = [request](int32_t i) {
    return request->window_begin <= i && i < request->window_end;
  };
  for (int32_t i = begin; i < end; ++i) {
    if (!was(i)) window_.Use(request->pages[i]);
  }
  for (int32_t i = request->window_begin; i < request->window_end; ++i) {
    if (begin <= i && i < end) continue;
    window_.Release(request->pages[i]);
    if (!pool_.cached(request->pages[i])) window_.Forget(request->pages[i]);
  }
  request->window_begin = begin;
  request->window_end = end;
}

void PageLedger::Index(Request* request) {
  const int32_t num_full = request->num_computed / limits_.page_size;
  while (limits_.prefix_cache && request->num_indexed < num_full) {
    const int32_t i = request->num_indexed;
    const int32_t mine = request->pages[i];
    const int32_t* tokens = request->tokens.data() + int64_t{i} * limits_.page_size;
    const int32_t known = cache_.Insert(request->cache_seed, LastIndexed(*request), tokens, mine);
    if (known != mine) Exchange(i, known, request);
    ++request->num_indexed;
  }
  SetWindow(limits_.FirstInWindow(request->num_computed), request->window_end, request);
}

void PageLedger::Close(Request* request) {
  if (request->num_indexed > 0) cache_.Touch(LastIndexed(*request));
  SetWindow(0, 0, request);
  for (int32_t page : request->pages) Discard(page);
  request->pages.clear();
  request->num_indexed = 0;
  request->num_computed = 0;
}

void PageLedger::Advance(int32_t num_computed, Request* request) {
  const int32_t gained = num_computed - request->num_computed;
  if (gained <= 0) return;
  request->num_computed = num_computed;
  OpenWindow(0, request);
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
  const int32_t window_begin = limits_.FirstInWindow(count * limits_.page_size);
  const int64_t spare = limits_.num_window_pages - limits_.MostWindowPages();
  if (limits_.window > 0 && NumWindowPinned() + count - window_begin > spare) {
    return "a prefix cannot be pinned: the layers with a window have no room for more";
  }
  PinnedPrefix pin{request.cache_seed, request.tokens, request.pages, window_begin};
  pin.tokens.resize(int64_t{count} * limits_.page_size);
  pin.pages.resize(count);
  for (const PinnedPrefix& other : pins_) {
    if (other.seed == pin.seed && other.tokens == pin.tokens) return "";
  }
  for (int32_t page : pin.pages) pool_.Hold(page);
  for (int32_t i = pin.window_begin; limits_.window > 0 && i < count; ++i) {
    window_.Use(pin.pages[i]);
  }
  pins_.push_back(std::move(pin));
  return "";
}

int32_t PageLedger::NumWindowPinned() const {
  size_t count = 0;
  for (const PinnedPrefix& pin : pins_) count += pin.pages.size() - pin.window_begin;
  return static_cast<int32_t>(count);
}

void PageLedger::Drop(const PinnedPrefix& pin) {
  for (size_t i = pin.window_begin; limits_.window > 0 && i < pin.pages.size(); ++i) {
    window_.Release(pin.pages[i]);
  }
  for (int32_t page : pin.pages) Discard(page);
}

void PageLedger::Unpin(uint64_t seed, const std::vector<int32_t>& tokens) {
  const size_t whole = tokens.size() / limits_.page_size * limits_.page_size;
  for (auto pin = pins_.begin(); pin != pins_.end(); ++pin) {
    if (pin->seed != seed || pin->tokens.size() != whole) continue;
    if (!std::equal(pin->tokens.begin(), pin->tokens.end(), tokens.begin())) continue;
    Drop(*pin);
    pins_.erase(pin);
    return;
  }
}

void PageLedger::DropPins() {
  for (const PinnedPrefix& pin : pins_) Drop(pin);
  pins_.clear();
}

// ---- All pages ----------------------------------------------------------------------------------

void PageLedger::Reset() {
  pins_.clear();
  cache_.Clear();
  pool_.Reset();
  window_.Reset();
}

void PageLedger::Check(const std::vector<Request*>& running) const {
  std::vector<int32_t> holders(pool_.num_total(), 0);
  std::vector<int32_t> users(pool_.num_total(), 0);
  for (const Request* request : running) {
    for (int32_t page : request->pages) ++holders.at(page);
    for (int32_t i = request->window_begin; i < request->window_end; ++i) {
      ++users.at(request->pages.at(i));
    }
    for (int32_t i = 0; i < static_cast<int32_t>(request->pages.size()); ++i) {
      if (pool_.cached(request->pages[i]) == (i < request->num_indexed)) continue;
      throw std::logic_error("page ledger: request " + std::to_string(request->id) + " has " +
                             std::to_string(request->num_indexed) + " indexed pages, but page " +
                             std::to_string(i) + " of it is not so");
    }
  }
  for (const PinnedPrefix& pin : pins_) {
    for (int32_t page : pin.pages) ++holders.at(page);
    for (size_t i = pin.window_begin; limits_.window > 0 && i < pin.pages.size(); ++i) {
      ++users.at(pin.pages[i]);
    }
  }
  window_.Check(users);
  pool_.Check(holders, cache_.CheckedPages());
}

}  // namespace cupola
