// The kernels of a library that TVM compiled for a device, as its code generators serialize them.
#ifndef CUPOLA_DEVICE_KERNEL_LIBRARY_H_
#define CUPOLA_DEVICE_KERNEL_LIBRARY_H_

#include <tvm/ffi/string.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace cupola {

struct KernelInfo {
  std::string name;
  std::vector<DLDataType> arguments;
  std::vector<std::string> launch_tags;  // what the arguments behind those above mean
  std::string source;
};

using KernelInfos = std::map<std::string, KernelInfo>;  // by name

// Numbers and texts one after the other, little-endian; lengths have 8 bytes. Everything throws
// ffi::Error where there is something else.
class KernelReader {
 public:
  explicit KernelReader(const tvm::ffi::Bytes& bytes) : data_(bytes.data()), left_(bytes.size()) {}

  size_t Count();
  std::string Text();
  // Their sources are empty.
  KernelInfos Infos();

 private:
  void Read(void* to, size_t bytes);
  template <typename T>
  T Number() {
    T value;
    Read(&value, sizeof(value));
    return value;
  }
  DLDataType Type();
  KernelInfo Info();

  const char* data_;
  size_t left_;
};

}  // namespace cupola

#endif  // CUPOLA_DEVICE_KERNEL_LIBRARY_H_
