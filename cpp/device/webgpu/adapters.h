// The adapters (GPUs and software that acts as one) that wgpu-native finds on this machine.
//
// They are in the order of their device numbers: discrete GPUs first, then integrated ones, then
// others, software last.
#ifndef CUPOLA_DEVICE_WEBGPU_ADAPTERS_H_
#define CUPOLA_DEVICE_WEBGPU_ADAPTERS_H_

#include <string>
#include <vector>

#include "device/webgpu/wgpu_native.h"

namespace cupola::wgpu {

struct AdapterDescription {
  std::string name;
  std::string driver;
  BackendType backend;
  AdapterType type;
  Limits limits;
  bool has_f16;
  bool has_subgroups;
  bool has_timestamps;
};

const char* BackendName(BackendType backend);
const char* AdapterTypeName(AdapterType type);

// One a process, and for its whole life: drivers do not survive being unloaded.
class Adapters {
 public:
  explicit Adapters(const Api& api);

  const Api& api() const { return api_; }
  size_t size() const { return adapters_.size(); }
  Adapter adapter(size_t i) const { return adapters_[i]; }
  AdapterDescription Describe(size_t i) const;

 private:
  const Api api_;
  Instance instance_;
  std::vector<Adapter> adapters_;
};

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_ADAPTERS_H_
