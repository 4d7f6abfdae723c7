// How long kernels take, by a device's own clock.
#ifndef CUPOLA_DEVICE_KERNEL_TIMES_H_
#define CUPOLA_DEVICE_KERNEL_TIMES_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace cupola {

struct KernelTime {
  std::string kernel;
  int64_t calls = 0;
  double microseconds = 0;
};

class KernelTimes {
 public:
  void Add(const std::string& kernel, double microseconds) {
    KernelTime& total = totals_[kernel];
    total.kernel = kernel;
    total.calls += 1;
    total.microseconds += microseconds;
  }
  // What took longest first.
  std::vector<KernelTime> Sorted() const {
    std::vector<KernelTime> times;
    for (const auto& [name, time] : totals_) times.push_back(time);
    std::sort(times.begin(), times.end(), [](const KernelTime& a, const KernelTime& b) {
      return a.microseconds > b.microseconds;
    });
    return times;
  }

 private:
  std::map<std::string, KernelTime> totals_;
};

}  // namespace cupola

#endif  // CUPOLA_DEVICE_KERNEL_TIMES_H_
