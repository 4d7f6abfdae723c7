// The devices that this machine's drivers for OpenCL offer.
//
// They are in the order of their device numbers: GPUs first, then accelerators, then others,
// processors last; within these as the drivers list them. Those that cannot compile are left out.
#ifndef CUPOLA_DEVICE_OPENCL_DEVICES_H_
#define CUPOLA_DEVICE_OPENCL_DEVICES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "device/opencl/opencl_library.h"

namespace cupola::opencl {

struct DeviceDescription {
  std::string name;
  std::string platform;
  std::string version;  // of OpenCL, in words of the driver
  std::string driver;
  Flags type;
  uint64_t max_tensor_bytes;
  uint64_t memory_bytes;
  uint64_t local_bytes;  // of a group of threads
  uint64_t max_threads;  // of a group
  uint64_t alignment;    // bytes at whose multiples a tensor may begin within a buffer
  bool has_f16;
};

const char* DeviceTypeName(Flags type);

class Devices {
 public:
  // Devices whose name or platform contains `preferred` come before the others; empty: none do.
  // Throws std::runtime_error with one sentence.
  Devices(Api api, const std::string& preferred);

  const Api& api() const { return api_; }
  size_t size() const { return found_.size(); }
  Device device(size_t i) const { return found_.at(i).device; }
  const DeviceDescription& description(size_t i) const { return found_.at(i).description; }

 private:
  struct Found {
    Device device;
    DeviceDescription description;
  };

  const Api api_;
  std::vector<Found> found_;
};

}  // namespace cupola::opencl

#endif  // CUPOLA_DEVICE_OPENCL_DEVICES_H_
