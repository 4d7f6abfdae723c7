#include "device/opencl/devices.h"

#include <algorithm>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace cupola::opencl {

namespace {

template <typename Get, typename Object>
std::string TextOf(Get get, Object object, Info what) {
  size_t bytes = 0;
  if (get(object, what, 0, nullptr, &bytes) != kSuccess || bytes == 0) return "";
  std::string text(bytes, '\0');
  get(object, what, bytes, text.data(), nullptr);
  text.resize(text.find('\0') == std::string::npos ? bytes : text.find('\0'));
  const size_t begin = text.find_first_not_of(' '), end = text.find_last_not_of(' ');
  return begin == std::string::npos ? "" : text.substr(begin, end + 1 - begin);
}

template <typename T>
T ValueOf(const Api& api, Device device, Info what) {
  T value{};
  api.GetDeviceInfo(device, what, sizeof(value), &value, nullptr);
  return value;
}

bool HasWord(const std::string& words, const std::string& word) {
  return (' ' + words + ' ').find(' ' + word + ' ') != std::string::npos;
}

DeviceDescription Describe(const Api& api, Platform platform, Device device) {
  DeviceDescription found;
  found.name = TextOf(api.GetDeviceInfo, device, kDeviceName);
  found.platform = TextOf(api.GetPlatformInfo, platform, kPlatformName);
  found.version = TextOf(api.GetDeviceInfo, device, kDeviceVersion);
  found.driver = TextOf(api.GetDeviceInfo, device, kDriverVersion);
  found.type = ValueOf<Flags>(api, device, kDeviceType);
  found.max_tensor_bytes = ValueOf<uint64_t>(api, device, kDeviceMaxMemAllocSize);
  found.memory_bytes = ValueOf<uint64_t>(api, device, kDeviceGlobalMemSize);
  found.local_bytes = ValueOf<uint64_t>(api, device, kDeviceLocalMemSize);
  found.max_threads = ValueOf<size_t>(api, device, kDeviceMaxWorkGroupSize);
  constexpr uint32_t kBitsPerByte = 8;
  found.alignment =
      std::max<uint64_t>(ValueOf<uint32_t>(api, device, kDeviceMemBaseAddrAlign) / kBitsPerByte, 1);
  found.has_f16 = HasWord(TextOf(api.GetDeviceInfo, device, kDeviceExtensions), "cl_khr_fp16");
  return found;
}

bool CanBeUsed(const Api& api, Device device) {
  for (const Info what : {kDeviceAvailable, kDeviceCompilerAvailable, kDeviceEndianLittle}) {
    if (ValueOf<Bool>(api, device, what) == 0) return false;
  }
  return true;
}

int Rank(Flags type) {
  if (type & kTypeGpu) return 0;
  if (type & kTypeAccelerator) return 1;
  return type & kTypeCpu ? 3 : 2;
}

std::vector<Platform> PlatformsOf(const Api& api) {
  uint32_t count = 0;
  const Status status = api.GetPlatformIDs(0, nullptr, &count);
  if (status == kPlatformNotFound || (status == kSuccess && count == 0)) return {};
  if (status != kSuccess) throw std::runtime_error("its platforms cannot be listed");
  std::vector<Platform> platforms(count);
  if (api.GetPlatformIDs(count, platforms.data(), nullptr) != kSuccess) return {};
  return platforms;
}

}  // namespace

const char* DeviceTypeName(Flags type) {
  if (type & kTypeGpu) return "GPU";
  if (type & kTypeAccelerator) return "accelerator";
  return type & kTypeCpu ? "processor" : "other";
}

Devices::Devices(Api api, const std::string& preferred) : api_(api) {
  for (const Platform platform : PlatformsOf(api_)) {
    uint32_t count = 0;
    if (api_.GetDeviceIDs(platform, kTypeAll, 0, nullptr, &count) != kSuccess) continue;
    std::vector<Device> devices(count);
    if (api_.GetDeviceIDs(platform, kTypeAll, count, devices.data(), nullptr) != kSuccess) continue;
    for (const Device device : devices) {
      if (CanBeUsed(api_, device)) found_.push_back({device, Describe(api_, platform, device)});
    }
  }
  const auto rank = [&](const Found& found) {
    const DeviceDescription& device = found.description;
    const std::string names = device.platform + '\n' + device.name;
    const bool wanted = !preferred.empty() && names.find(preferred) != std::string::npos;
    return std::make_tuple(wanted ? 0 : 1, Rank(device.type));
  };
  std::stable_sort(found_.begin(), found_.end(),
                   [&](const Found& a, const Found& b) { return rank(a) < rank(b); });
}

}  // namespace cupola::opencl
