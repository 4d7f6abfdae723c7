// What an OpenCL device is to do, in the order in which it is asked. For one thread at a time.
#ifndef CUPOLA_DEVICE_OPENCL_COMMANDS_H_
#define CUPOLA_DEVICE_OPENCL_COMMANDS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "device/kernel_times.h"
#include "device/opencl/gpu.h"
#include "device/opencl/memory.h"

namespace cupola::opencl {

// A call of a kernel.
struct Dispatch {
  struct Scalar {
    uint32_t index;  // of the argument
    uint32_t bytes;
    uint64_t bits;
  };

  const std::string* name;  // which lives as long as the library
  KernelHandle kernel;
  std::vector<std::pair<uint32_t, SharedMem>> buffers;  // with the indices of the arguments
  std::vector<Scalar> scalars;
  size_t threads[3];  // of the whole grid
  size_t block[3];
};

class Commands {
 public:
  // Throws ffi::Error.
  explicit Commands(const Gpu* gpu);

  void Add(const Dispatch& dispatch);
  void Copy(const Memory::Place& from, const Memory::Place& to, uint64_t bytes);
  // From host memory, which may change at once.
  void Upload(const void* from, const Memory::Place& to, uint64_t bytes);
  // To host memory; waits for everything before it.
  void Download(const Memory::Place& from, void* to, uint64_t bytes);
  void Wait();

  // Measures every kernel from now on.
  void StartProfile();
  // Waits; microseconds and calls of each kernel since StartProfile.
  std::vector<KernelTime> StopProfile();

 private:
  struct Measured {
    std::string kernel;
    Event event;
  };

  Queue MakeQueue(Flags flags) const;
  double MicrosecondsOf(Event event) const;

  const Gpu* gpu_;
  const Api& api_;
  Queue queue_;
  std::vector<std::vector<uint8_t>> uploads_;  // that may not be done yet
  uint64_t upload_bytes_ = 0;
  int kernels_since_flush_ = 0;
  Queue plain_queue_ = nullptr;     // while kernels are measured on another one
  std::vector<Measured> measured_;  // since StartProfile
};

}  // namespace cupola::opencl

#endif  // CUPOLA_DEVICE_OPENCL_COMMANDS_H_
