// How many values lie between fixed bounds, and their sum: what a scrape needs to draw quantiles.
#ifndef CUPOLA_ENGINE_HISTOGRAM_H_
#define CUPOLA_ENGINE_HISTOGRAM_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace cupola {

class Histogram {
 public:
  // `bounds` ascend; a value that equals one lies below it.
  explicit Histogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

  void Add(double value) {
    const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
    ++counts_[static_cast<size_t>(bound - bounds_.begin())];
    sum_ += value;
  }

  const std::vector<double>& bounds() const { return bounds_; }
  // One more than bounds: the last one counts what lies above all of them.
  const std::vector<int64_t>& counts() const { return counts_; }
  double sum() const { return sum_; }

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;
  double sum_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_HISTOGRAM_H_
