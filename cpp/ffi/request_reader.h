// A request as Python packs it (python/cupola/engine/packing.py): values one after the other, in
// the order in which both sides name them.
#ifndef CUPOLA_FFI_REQUEST_READER_H_
#define CUPOLA_FFI_REQUEST_READER_H_

#include <tvm/ffi/string.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace cupola {

class RequestReader {
 public:
  explicit RequestReader(const tvm::ffi::Bytes& bytes)
      : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  int64_t Word() { return Read<int64_t>(); }
  int32_t Int() { return static_cast<int32_t>(Read<int64_t>()); }
  bool Bool() { return Read<int64_t>() != 0; }
  float Float() { return static_cast<float>(Read<double>()); }
  std::vector<int32_t> Ints() { return ReadMany<int32_t>(); }
  std::vector<float> Floats() { return ReadMany<float>(); }

  // Both sides must name the same fields.
  void CheckEnd() const {
    if (at_ != end_) throw std::logic_error("request: there is more in it than was read");
  }

 private:
  template <typename T>
  T Read() {
    T value;
    Copy(&value, 1);
    return value;
  }

  template <typename T>
  std::vector<T> ReadMany() {
    std::vector<T> values(static_cast<size_t>(Read<int64_t>()));
    Copy(values.data(), values.size());
    return values;
  }

  template <typename T>
  void Copy(T* values, size_t count) {
    if (count == 0) return;  // memcpy takes no null pointer, not even for nothing
    const size_t size = count * sizeof(T);
    if (static_cast<size_t>(end_ - at_) < size) throw std::logic_error("request: it is cut off");
    std::memcpy(values, at_, size);
    at_ += size;
  }

  const char* at_;
  const char* const end_;
};

}  // namespace cupola

#endif  // CUPOLA_FFI_REQUEST_READER_H_
