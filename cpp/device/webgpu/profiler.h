// How long each kernel takes on a WebGPU device, by the device's own clock.
//
// While it is in use every kernel is a pass of its own, since clocks are read between passes.
#ifndef CUPOLA_DEVICE_WEBGPU_PROFILER_H_
#define CUPOLA_DEVICE_WEBGPU_PROFILER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "device/kernel_times.h"
#include "device/webgpu/gpu.h"
#include "device/webgpu/memory.h"

namespace cupola::wgpu {

class Profiler {
 public:
  // Throws ffi::Error if the device has no clock.
  explicit Profiler(Gpu* gpu);
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  bool full() const { return kernels_.size() == kMostKernels; }
  // Where the pass of the next kernel writes its times. Not when full.
  PassTimestampWrites Next(const std::string& kernel);
  // Records the commands that make the times readable; before each submission.
  void Resolve(CommandEncoder encoder);
  // Adds the times of the kernels of a submission up. `download` reads a place of the device.
  template <typename Download>
  void Collect(const Download& download) {
    if (kernels_.empty()) return;
    const std::vector<std::string> kernels = std::move(kernels_);
    kernels_.clear();
    std::vector<uint64_t> ticks(2 * kernels.size());
    download(Place{times_.get(), 0, 0, times_.bytes()}, ticks.data(),
             ticks.size() * sizeof(ticks[0]));
    Add(kernels, ticks);
  }
  std::vector<KernelTime> Times() const { return totals_.Sorted(); }

 private:
  static constexpr size_t kMostKernels = 2048;  // of a submission; a set has 4096 clock readings
  void Add(const std::vector<std::string>& kernels, const std::vector<uint64_t>& ticks);

  Gpu* gpu_;
  OwnedBuffer times_;
  QuerySet queries_;
  std::vector<std::string> kernels_;  // recorded since the last submission
  KernelTimes totals_;
};

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_PROFILER_H_
