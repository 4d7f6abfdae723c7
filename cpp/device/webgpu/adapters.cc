#include "device/webgpu/adapters.h"

#include <algorithm>
#include <stdexcept>

namespace cupola::wgpu {

namespace {

// The information of an adapter, whose texts belong to the library.
class Info {
 public:
  Info(const Api& api, Adapter adapter) : api_(api) { api_.AdapterGetInfo(adapter, &info_); }
  ~Info() { api_.AdapterInfoFreeMembers(info_); }
  Info(const Info&) = delete;
  Info& operator=(const Info&) = delete;
  const AdapterInfo* operator->() const { return &info_; }

 private:
  const Api& api_;
  AdapterInfo info_{};
};

}  // namespace

const char* BackendName(BackendType backend) {
  switch (backend) {
    case BackendType::kVulkan:
      return "Vulkan";
    case BackendType::kMetal:
      return "Metal";
    case BackendType::kD3D12:
      return "DirectX 12";
  }
  return "unknown";
}

const char* AdapterTypeName(AdapterType type) {
  switch (type) {
    case AdapterType::kDiscreteGpu:
      return "discrete GPU";
    case AdapterType::kIntegratedGpu:
      return "integrated GPU";
    case AdapterType::kCpu:
      return "software";
    case AdapterType::kUnknown:
      break;
  }
  return "unknown";
}

Adapters::Adapters(const Api& api) : api_(api) {
  InstanceExtras extras{};
  extras.chain.type = SType::kInstanceExtras;
  extras.backends = kBackendsPrimary;
  InstanceDescriptor descriptor{};
  descriptor.next = &extras.chain;
  instance_ = api_.CreateInstance(&descriptor);
  if (instance_ == nullptr) throw std::runtime_error("wgpu-native could not be started");
  EnumerateAdapterOptions options{};
  options.backends = kBackendsPrimary;
  adapters_.resize(api_.InstanceEnumerateAdapters(instance_, &options, nullptr));
  api_.InstanceEnumerateAdapters(instance_, &options, adapters_.data());
  const auto rank = [this](Adapter adapter) {
    const AdapterType type = Info(api_, adapter)->adapter_type;
    return type == AdapterType::kCpu ? 10 : static_cast<int>(type);
  };
  std::stable_sort(adapters_.begin(), adapters_.end(),
                   [&](Adapter a, Adapter b) { return rank(a) < rank(b); });
}

AdapterDescription Adapters::Describe(size_t i) const {
  const Adapter adapter = adapters_.at(i);
  const Info info(api_, adapter);
  AdapterDescription result{};
  result.name = Text(info->device);
  result.driver = Text(info->description);
  result.backend = info->backend_type;
  result.type = info->adapter_type;
  api_.AdapterGetLimits(adapter, &result.limits);
  result.has_f16 = api_.AdapterHasFeature(adapter, FeatureName::kShaderF16) != 0;
  result.has_subgroups = api_.AdapterHasFeature(adapter, FeatureName::kSubgroups) != 0;
  result.has_timestamps = api_.AdapterHasFeature(adapter, FeatureName::kTimestampQuery) != 0;
  return result;
}

}  // namespace cupola::wgpu
