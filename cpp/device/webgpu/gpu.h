// An adapter in use: its queue, its limits, and what went wrong on it.
//
// wgpu-native reports errors through a callback, not through results; Check turns what it heard
// into an exception. It owns no memory and no commands.
#ifndef CUPOLA_DEVICE_WEBGPU_GPU_H_
#define CUPOLA_DEVICE_WEBGPU_GPU_H_

#include <mutex>
#include <string>

#include "device/device_error.h"
#include "device/webgpu/adapters.h"
#include "device/webgpu/wgpu_native.h"

namespace cupola::wgpu {

class Gpu {
 public:
  // Throws ffi::Error if the adapter cannot be used.
  Gpu(const Adapters& adapters, size_t index);

  const Api& api() const { return api_; }
  Device device() const { return device_; }
  Queue queue() const { return queue_; }
  const AdapterDescription& description() const { return description_; }
  const Limits& limits() const { return description_.limits; }

  // Throws ffi::Error when something went wrong since the last call, or the device is lost; `doing`
  // completes "while ...".
  void Check(const char* doing);
  // Forgets what went wrong.
  void ClearError();
  // Waits until everything submitted is done and its callbacks have run.
  void Wait();
  // Gives the device up, as a driver that fails does: all later calls throw.
  void Lose();

 private:
  void Open(Adapter adapter);
  void OnError(ErrorType type, const std::string& message);
  void OnLost(const std::string& message);

  const Api& api_;
  const AdapterDescription description_;
  Device device_ = nullptr;
  Queue queue_ = nullptr;
  std::mutex mutex_;   // callbacks may come from any thread
  std::string error_;  // the first one since Check; empty: none
  std::string lost_;   // why the device is lost; empty: it is not
};

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_GPU_H_
