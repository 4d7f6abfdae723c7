#include "engine/window_places.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace cupola {

namespace {

std::logic_error Wrong(int32_t page, const char* what) {
  return std::logic_error("window places: page " + std::to_string(page) + " " + what);
}

}  // namespace

WindowPlaces::WindowPlaces(int32_t num_places, int32_t num_pages)
    : num_places_(num_places), pages_(num_pages) {
  Reset();
}

void WindowPlaces::Use(int32_t page) {
  Entry& entry = pages_.at(page);
  if (entry.place == kNoPlace) {
    entry.place = TakePlace();
  } else if (entry.users == 0) {
    idle_.erase(entry.idle);
  }
  ++entry.users;
}

int32_t WindowPlaces::TakePlace() {
  if (free_.empty()) {
    if (idle_.empty()) throw std::logic_error("window places: all are in use");
    Forget(idle_.front());
  }
  const int32_t place = free_.back();
  free_.pop_back();
  return place;
}

void WindowPlaces::Release(int32_t page) {
  Entry& entry = pages_.at(page);
  if (entry.users == 0) throw Wrong(page, "has no users");
  if (--entry.users == 0) entry.idle = idle_.insert(idle_.end(), page);
}

void WindowPlaces::Forget(int32_t page) {
  Entry& entry = pages_.at(page);
  if (entry.users > 0) throw Wrong(page, "is forgotten, but has users");
  if (entry.place == kNoPlace) return;
  idle_.erase(entry.idle);
  free_.push_back(entry.place);
  entry.place = kNoPlace;
}

void WindowPlaces::Move(int32_t from, int32_t to) {
  Entry& source = pages_.at(from);
  Entry& target = pages_.at(to);
  if (source.users > 0) throw Wrong(from, "is moved, but has users");
  if (source.place != kNoPlace && target.place == kNoPlace) {
    target.place = source.place;
    target.idle = source.idle;
    *target.idle = to;
    source.place = kNoPlace;
  }
  Forget(from);
}

void WindowPlaces::Reset() {
  pages_.assign(pages_.size(), Entry{});
  idle_.clear();
  free_.clear();
  for (int32_t place = num_places_ - 1; place >= 0; --place) free_.push_back(place);
}

void WindowPlaces::Check(const std::vector<int32_t>& users) const {
  std::vector<bool> taken(num_places_, false);
  size_t num_idle = 0;
  for (int32_t page = 0; page < static_cast<int32_t>(pages_.size()); ++page) {
    const Entry& entry = pages_[page];
    if (entry.users != users[page]) throw Wrong(page, "has other users than it should");
    if (entry.users > 0 && entry.place == kNoPlace) throw Wrong(page, "is used without a place");
    if (entry.place == kNoPlace) continue;
    if (taken.at(entry.place)) throw Wrong(page, "shares its place");
    taken[entry.place] = true;
    num_idle += entry.users == 0;
  }
  const auto num_taken = static_cast<size_t>(std::count(taken.begin(), taken.end(), true));
  if (num_idle != idle_.size() || num_taken + free_.size() != taken.size()) {
    throw std::logic_error("window places: " + std::to_string(num_taken) + " taken + " +
                           std::to_string(free_.size()) +
                           " free != " + std::to_string(taken.size()));
  }
}

}  // namespace cupola
