// Where layers that see only a window of the context keep its pages.
//
// To such layers a page is of use while it is within the window of somebody who runs, and again
// when a prefix that ends behind it is found in the cache. So they have fewer places than there are
// pages: a page gets one when it is first used, keeps it while it has users, and then until the
// place is wanted for another, the one first that went without users for the longest time. With as
// many places as all who run can use at once, none is ever refused one.
//
// It knows pages by their numbers, and no requests.
#ifndef CUPOLA_ENGINE_WINDOW_PLACES_H_
#define CUPOLA_ENGINE_WINDOW_PLACES_H_

#include <cstdint>
#include <list>
#include <vector>

namespace cupola {

class WindowPlaces {
 public:
  static constexpr int32_t kNoPlace = -1;

  WindowPlaces(int32_t num_places, int32_t num_pages);

  int32_t num_total() const { return num_places_; }
  // Whether what was computed of the page is still there.
  bool has(int32_t page) const { return pages_[page].place != kNoPlace; }
  int32_t place(int32_t page) const { return pages_[page].place; }

  // One user more of a page; a page without a place gets one, whose contents are undefined. Like
  // all that follow, throws std::logic_error for what cannot be.
  void Use(int32_t page);
  // And one fewer.
  void Release(int32_t page);
  // The page is nobody's any more, or stands for other tokens from now on: its place is free.
  void Forget(int32_t page);
  // `to`, which stands for the same tokens as `from`, takes its place over unless it has one.
  // `from` is forgotten.
  void Move(int32_t from, int32_t to);
  void Reset();

  // Throws std::logic_error unless page i has `users[i]` users and no two pages share a place.
  void Check(const std::vector<int32_t>& users) const;

 private:
  struct Entry {
    int32_t place = kNoPlace;
    int32_t users = 0;
    std::list<int32_t>::iterator idle;  // where it stands in idle_, if it has a place and no users
  };

  int32_t TakePlace();

  const int32_t num_places_;
  std::vector<int32_t> free_;  // a stack
  std::vector<Entry> pages_;   // of each page
  std::list<int32_t> idle_;    // pages with a place and no users, the longest so first
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_WINDOW_PLACES_H_
