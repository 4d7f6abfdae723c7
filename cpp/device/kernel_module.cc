#include "device/kernel_module.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "device/device_error.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

constexpr char kBlockTag[] = "blockIdx.", kThreadTag[] = "threadIdx.";
constexpr char kWriteTag[] = "paramWriteAccess:";

bool StartsWith(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

// "[0,1,...]": which buffers are written.
std::vector<bool> ReadFlags(const std::string& list) {
  std::vector<bool> flags;
  for (const char c : list) {
    if (c == '0' || c == '1') flags.push_back(c == '1');
  }
  return flags;
}

template <typename T>
uint64_t Bits(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  return bits;
}

class KernelModule final : public ffi::ModuleObj {
 public:
  KernelModule(DevicePlugin* plugin, KernelInfos infos, KernelMaker make)
      : plugin_(plugin), infos_(std::move(infos)), make_(std::move(make)) {}

  const char* kind() const final { return DeviceKindName(plugin_->type()); }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    const auto info = infos_.find(name);
    if (info == infos_.end()) return std::nullopt;
    return ffi::Function::FromPacked(
        [plugin = plugin_, kernel = make_(info->second)](ffi::PackedArgs arguments, ffi::Any*) {
          kernel->Call(plugin, arguments);
        });
  }

  ffi::String InspectSource(const ffi::String&) const final {
    std::string source;
    for (const auto& [name, info] : infos_) source += info.source;
    return source;
  }

 private:
  DevicePlugin* const plugin_;
  const KernelInfos infos_;
  const KernelMaker make_;
};

}  // namespace

KernelSignature::KernelSignature(const KernelInfo& info) : num_arguments(info.arguments.size()) {
  for (size_t i = 0; i < num_arguments; ++i) {
    (info.arguments[i].code == kDLOpaqueHandle ? buffers : scalars).push_back(i);
  }
  for (const std::string& tag : info.launch_tags) {
    if (StartsWith(tag, kBlockTag) || StartsWith(tag, kThreadTag)) {
      sizes.push_back({StartsWith(tag, kThreadTag), tag.back() - 'x'});
    } else if (StartsWith(tag, kWriteTag)) {
      writes = ReadFlags(tag.substr(sizeof(kWriteTag) - 1));
    } else {
      Raise("the kernel " + info.name + " needs " + tag + ", which its device does not have");
    }
  }
}

LaunchGrid KernelSignature::GridOf(const ffi::PackedArgs& arguments) const {
  LaunchGrid grid;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto size = arguments[static_cast<int>(num_arguments + i)].cast<int64_t>();
    (sizes[i].threads ? grid.threads : grid.blocks)[sizes[i].axis] =
        static_cast<uint64_t>(std::max<int64_t>(size, 0));
  }
  return grid;
}

uint64_t ScalarBits(DLDataType type, const ffi::AnyView& value) {
  if (type.code != kDLFloat) return static_cast<uint64_t>(value.cast<int64_t>());
  const auto number = value.cast<double>();
  return type.bits == 64 ? Bits(number) : Bits(static_cast<float>(number));
}

void DeviceKernel::Call(DevicePlugin* plugin, const ffi::PackedArgs& arguments) {
  if (static_cast<size_t>(arguments.size()) != signature_.num_arguments + signature_.sizes.size()) {
    Raise("the kernel " + info_.name + " was called with a wrong number of arguments");
  }
  const LaunchGrid grid = signature_.GridOf(arguments);
  const auto is_zero = [](uint64_t blocks) { return blocks == 0; };
  if (std::any_of(std::begin(grid.blocks), std::end(grid.blocks), is_zero)) return;
  const int device = plugin->current_device();
  DeviceContext* context = plugin->ContextOf(device);
  const std::lock_guard<std::mutex> lock(context->mutex);
  try {
    MakeOrRemember(context, Prepare(context, device, arguments, grid));
  } catch (...) {
    if (!IsRecording()) context->Abandon();
    throw;
  }
}

ffi::Module MakeKernelModule(DevicePlugin* plugin, KernelInfos infos, KernelMaker make) {
  return ffi::Module(ffi::make_object<KernelModule>(plugin, std::move(infos), std::move(make)));
}

}  // namespace cupola
