#include "device/device_error.h"

#include <tvm/ffi/error.h>

namespace cupola {

void Raise(const std::string& message) {
  throw tvm::ffi::Error("RuntimeError", message, TVMFFIBacktrace(nullptr, 0, nullptr, 0));
}

std::string OneLine(const std::string& message) {
  std::string line;
  bool space = false;
  for (const char c : message) {
    if (c == '\n' || c == ' ' || c == '\t') {
      space = !line.empty();
      continue;
    }
    if (space) line += ' ';
    space = false;
    line += c;
  }
  constexpr size_t kMost = 600;
  return line.size() <= kMost ? line : line.substr(0, kMost) + "...";
}

}  // namespace cupola
