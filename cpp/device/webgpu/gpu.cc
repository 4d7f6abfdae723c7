#include "device/webgpu/gpu.h"

#include <vector>

namespace cupola::wgpu {

namespace {

const char* ErrorName(ErrorType type) {
  switch (type) {
    case ErrorType::kValidation:
      return "validation error";
    case ErrorType::kOutOfMemory:
      return "out of memory";
    case ErrorType::kInternal:
      return "internal error";
  }
  return "error";
}

struct Opened {
  Device device = nullptr;
  std::string message;
};

}  // namespace

Gpu::Gpu(const Adapters& adapters, size_t index)
    : api_(adapters.api()), description_(adapters.Describe(index)) {
  Open(adapters.adapter(index));
}

void Gpu::Open(Adapter adapter) {
  std::vector<FeatureName> features;
  for (const FeatureName feature : {FeatureName::kShaderF16, FeatureName::kTimestampQuery,
                                    FeatureName::kSubgroups, FeatureName::kNativeSubgroup}) {
    if (api_.AdapterHasFeature(adapter, feature)) features.push_back(feature);
  }
  DeviceDescriptor descriptor{};
  descriptor.num_required_features = features.size();
  descriptor.required_features = features.data();
  descriptor.required_limits = &description_.limits;
  descriptor.device_lost.mode = CallbackMode::kAllowSpontaneous;
  descriptor.device_lost.callback = [](const Device*, DeviceLostReason, StringView message,
                                       void* self,
                                       void*) { static_cast<Gpu*>(self)->OnLost(Text(message)); };
  descriptor.device_lost.user_data[0] = this;
  descriptor.uncaptured_error.callback = [](const Device*, ErrorType type, StringView message,
                                            void* self, void*) {
    static_cast<Gpu*>(self)->OnError(type, Text(message));
  };
  descriptor.uncaptured_error.user_data[0] = this;
  Opened opened;
  CallbackInfo<RequestDeviceCallback> done{};
  done.mode = CallbackMode::kAllowSpontaneous;
  done.callback = [](RequestStatus, Device device, StringView message, void* opened, void*) {
    *static_cast<Opened*>(opened) = {device, Text(message)};
  };
  done.user_data[0] = &opened;
  api_.AdapterRequestDevice(adapter, &descriptor, done);  // calls back before it returns
  if (opened.device == nullptr) {
    Raise("the WebGPU adapter " + description_.name +
          " cannot be used: " + OneLine(opened.message));
  }
  device_ = opened.device;
  queue_ = api_.DeviceGetQueue(device_);
}

void Gpu::Check(const char* doing) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!lost_.empty()) Raise("the WebGPU device is lost: " + lost_);
  if (error_.empty()) return;
  const std::string error = std::move(error_);
  error_.clear();
  Raise("WebGPU " + error + " (while " + doing + ")");
}

void Gpu::ClearError() {
  const std::lock_guard<std::mutex> lock(mutex_);
  error_.clear();
}

void Gpu::Wait() { api_.DevicePoll(device_, 1, nullptr); }

void Gpu::Lose() {
  api_.DeviceDestroy(device_);
  Wait();
}

void Gpu::OnError(ErrorType type, const std::string& message) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (error_.empty()) error_ = std::string(ErrorName(type)) + ": " + OneLine(message);
  // The callback for losses may come later than the first error of a device that is lost.
  if (lost_.empty() && message.find("device is lost") != std::string::npos) lost_ = "Device lost";
}

void Gpu::OnLost(const std::string& message) {
  const std::lock_guard<std::mutex> lock(mutex_);
  lost_ = message.empty() ? "no reason was given" : OneLine(message);
}

}  // namespace cupola::wgpu
