// What is launched on a device once, to be launched again without the cost of calling it.
//
// The host asks a device for hundreds of kernels a step; where a step repeats with the same grids
// and addresses, the device can be told all of them at once. CUDA has graphs for that, devices of
// our own (WebGPU, OpenCL) have launch_recorder.h. It knows no models.
#ifndef CUPOLA_DEVICE_RECORDING_H_
#define CUPOLA_DEVICE_RECORDING_H_

#include <tvm/ffi/c_api.h>

#include <functional>
#include <memory>

namespace cupola {

class Recording {
 public:
  virtual ~Recording() = default;
  // Launches what was recorded, behind all that was launched before. Whatever it reads and writes
  // has to be where it was. Returns before it is done; throws on failure.
  virtual void Replay() = 0;
};

class Recorder {
 public:
  virtual ~Recorder() = default;
  // What `launches` launches on the device, in the calling thread: remembered, and not executed.
  // Throws what it throws, and where something cannot be repeated (a copy from the host, a wait);
  // the device is then as it was before.
  virtual std::unique_ptr<Recording> Record(const std::function<void()>& launches) = 0;
};

// Null where devices of the kind cannot record.
std::unique_ptr<Recorder> RecorderOf(DLDevice device);

}  // namespace cupola

#endif  // CUPOLA_DEVICE_RECORDING_H_
