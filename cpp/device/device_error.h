// Errors of a device as exceptions that TVM's runtime lets through.
#ifndef CUPOLA_DEVICE_DEVICE_ERROR_H_
#define CUPOLA_DEVICE_DEVICE_ERROR_H_

#include <string>

namespace cupola {

// Throws ffi::Error "RuntimeError" with one sentence.
[[noreturn]] void Raise(const std::string& message);

// What a driver says in several lines, as one of a bounded length.
std::string OneLine(const std::string& message);

}  // namespace cupola

#endif  // CUPOLA_DEVICE_DEVICE_ERROR_H_
