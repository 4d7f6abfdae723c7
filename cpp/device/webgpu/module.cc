#include "device/webgpu/module.h"

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device/webgpu/kernel.h"

namespace cupola::wgpu {

namespace ffi = tvm::ffi;

namespace {

// Numbers and texts one after the other, little-endian; lengths have 8 bytes.
class Reader {
 public:
  explicit Reader(const ffi::Bytes& bytes) : data_(bytes.data()), left_(bytes.size()) {}

  void Read(void* to, size_t bytes) {
    if (bytes > left_) Raise("the library's WebGPU kernels cannot be read");
    std::memcpy(to, data_, bytes);
    data_ += bytes;
    left_ -= bytes;
  }
  template <typename T>
  T Number() {
    T value;
    Read(&value, sizeof(value));
    return value;
  }
  size_t Count() {
    const auto count = Number<uint64_t>();
    if (count > left_) Raise("the library's WebGPU kernels cannot be read");
    return static_cast<size_t>(count);
  }
  std::string Text() {
    std::string text(Count(), '\0');
    Read(text.data(), text.size());
    return text;
  }

 private:
  const char* data_;
  size_t left_;
};

DLDataType ReadType(Reader* reader) {
  DLDataType type;
  type.code = reader->Number<uint8_t>();
  type.bits = reader->Number<uint8_t>();
  type.lanes = reader->Number<uint16_t>();
  return type;
}

KernelInfo ReadInfo(Reader* reader) {
  KernelInfo info;
  info.name = reader->Text();
  for (size_t n = reader->Count(); n > 0; --n) info.arguments.push_back(ReadType(reader));
  for (size_t n = reader->Count(); n > 0; --n) info.launch_tags.push_back(reader->Text());
  for (size_t n = reader->Count(); n > 0; --n) {
    if (reader->Number<int32_t>() != 0) Raise("a WebGPU kernel takes a tensor map");
  }
  return info;
}

class KernelModule final : public ffi::ModuleObj {
 public:
  explicit KernelModule(std::map<std::string, KernelInfo> kernels) : infos_(std::move(kernels)) {}

  const char* kind() const final { return "webgpu"; }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    const auto info = infos_.find(name);
    if (info == infos_.end()) return std::nullopt;
    const auto kernel = std::make_shared<Kernel>(info->second);
    return ffi::Function::FromPacked(
        [kernel](ffi::PackedArgs args, ffi::Any*) { kernel->Launch(args); });
  }

  ffi::String InspectSource(const ffi::String&) const final {
    std::string source;
    for (const auto& [name, info] : infos_) source += info.source;
    return source;
  }

 private:
  const std::map<std::string, KernelInfo> infos_;
};

}  // namespace

ffi::Module LoadModule(const ffi::Bytes& bytes) {
  Reader reader(bytes);
  std::map<std::string, KernelInfo> kernels;
  for (size_t n = reader.Count(); n > 0; --n) {
    const std::string name = reader.Text();
    kernels.emplace(name, ReadInfo(&reader));
  }
  for (size_t n = reader.Count(); n > 0; --n) {
    const std::string name = reader.Text();
    const auto kernel = kernels.find(name);
    if (kernel == kernels.end()) Raise("the library has a WebGPU kernel without arguments");
    kernel->second.name = name;
    kernel->second.source = reader.Text();
  }
  return ffi::Module(ffi::make_object<KernelModule>(std::move(kernels)));
}

}  // namespace cupola::wgpu
