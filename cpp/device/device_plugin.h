// Kinds of devices that Cupola drives itself, as devices of TVM's runtime.
//
// A kind implements DeviceContext, which is one device in use with one queue, and says how devices
// are opened; what TVM's runtime asks is answered here (device_plugin.cc) for all of them.
#ifndef CUPOLA_DEVICE_DEVICE_PLUGIN_H_
#define CUPOLA_DEVICE_DEVICE_PLUGIN_H_

#include <tvm/ffi/any.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/string.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "device/device_api.h"
#include "device/kernel_times.h"

namespace cupola {

// A device in use. Whoever calls it holds its mutex. Everything throws ffi::Error with one
// sentence.
class DeviceContext {
 public:
  virtual ~DeviceContext() = default;
  // None: the driver does not say.
  virtual tvm::ffi::Any Attribute(DeviceAttr attr) const = 0;

  // Addresses are those of an AddressTable.
  virtual void* Alloc(uint64_t bytes) = 0;
  virtual void Free(void* address) = 0;
  virtual uint64_t allocated_bytes() const = 0;

  // In order with the kernels. The host's memory may change as soon as Upload returns; Download
  // waits.
  virtual void Copy(const void* from, void* to, uint64_t bytes) = 0;
  virtual void Upload(const void* from, void* to, uint64_t bytes) = 0;
  virtual void Download(const void* from, void* to, uint64_t bytes) = 0;
  virtual void Wait() = 0;
  // Drops what was asked for and not begun, after something went wrong with it.
  virtual void Abandon() = 0;

  // Measures every kernel from now on.
  virtual void StartProfile() = 0;
  // Waits; what kernels took since StartProfile.
  virtual std::vector<KernelTime> StopProfile() = 0;

  std::mutex mutex;
};

class DevicePlugin {
 public:
  // `name` is what messages call the kind.
  DevicePlugin(const char* name, DLDeviceType type) : name_(name), type_(type) {}
  virtual ~DevicePlugin() = default;
  DevicePlugin(const DevicePlugin&) = delete;
  DevicePlugin& operator=(const DevicePlugin&) = delete;

  const char* name() const { return name_; }
  DLDeviceType type() const { return type_; }

  // The device with this number, opened on first use; it lives as long as the process. Throws
  // ffi::Error if there is none.
  DeviceContext* ContextOf(int index);
  // The number of the device that the calling thread's kernels run on.
  int current_device() const;
  void SetCurrentDevice(int index);

 protected:
  // How many devices there are. Throws ffi::Error where the driver's library is not loaded.
  virtual size_t CountDevices() = 0;
  virtual std::unique_ptr<DeviceContext> Open(size_t index) = 0;

 private:
  const char* const name_;
  const DLDeviceType type_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<DeviceContext>> contexts_;
};

// Makes TVM's runtime, which has to be loaded, use devices of the kind through `plugin`, which
// lives as long as the process, and read libraries of it with `load_module`. Throws
// std::runtime_error if TVM's runtime is another one.
void RegisterPlugin(DevicePlugin* plugin, tvm::ffi::Module (*load_module)(const tvm::ffi::Bytes&));

// That of a kind which is registered. Throws ffi::Error if it is none of ours.
DevicePlugin* PluginOf(DLDeviceType type);

}  // namespace cupola

#endif  // CUPOLA_DEVICE_DEVICE_PLUGIN_H_
