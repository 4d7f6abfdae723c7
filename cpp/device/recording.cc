#include "device/recording.h"

#include "device/cuda/graph_recorder.h"
#include "device/webgpu/recorder.h"

namespace cupola {

std::unique_ptr<Recorder> RecorderOf(DLDevice device) {
  switch (device.device_type) {
    case kDLCUDA:
      return MakeGraphRecorder(device);
    case kDLWebGPU:
      return wgpu::MakeRecorder(device.device_id);
    default:
      return nullptr;
  }
}

}  // namespace cupola
