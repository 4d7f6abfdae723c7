#include "device/kernel_library.h"

#include <cstring>

#include "device/device_error.h"

namespace cupola {

void KernelReader::Read(void* to, size_t bytes) {
  if (bytes > left_) Raise("the library's kernels cannot be read");
  std::memcpy(to, data_, bytes);
  data_ += bytes;
  left_ -= bytes;
}

size_t KernelReader::Count() {
  const auto count = Number<uint64_t>();
  if (count > left_) Raise("the library's kernels cannot be read");
  return static_cast<size_t>(count);
}

std::string KernelReader::Text() {
  std::string text(Count(), '\0');
  Read(text.data(), text.size());
  return text;
}

DLDataType KernelReader::Type() {
  DLDataType type;
  type.code = Number<uint8_t>();
  type.bits = Number<uint8_t>();
  type.lanes = Number<uint16_t>();
  return type;
}

KernelInfo KernelReader::Info() {
  KernelInfo info;
  info.name = Text();
  for (size_t n = Count(); n > 0; --n) info.arguments.push_back(Type());
  for (size_t n = Count(); n > 0; --n) info.launch_tags.push_back(Text());
  for (size_t n = Count(); n > 0; --n) {
    if (Number<int32_t>() != 0) Raise("the kernel " + info.name + " takes a tensor map");
  }
  return info;
}

KernelInfos KernelReader::Infos() {
  KernelInfos infos;
  for (size_t n = Count(); n > 0; --n) {
    std::string name = Text();
    KernelInfo info = Info();
    info.name = name;
    infos.emplace(std::move(name), std::move(info));
  }
  return infos;
}

}  // namespace cupola
