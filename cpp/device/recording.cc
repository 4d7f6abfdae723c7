#include "device/recording.h"

#include "device/cuda/graph_recorder.h"
#include "device/device_plugin.h"
#include "device/launch_recorder.h"

namespace cupola {

std::unique_ptr<Recorder> RecorderOf(DLDevice device) {
  switch (device.device_type) {
    case kDLCUDA:
      return MakeGraphRecorder(device);
    case kDLOpenCL:
    case kDLWebGPU:
      return MakeLaunchRecorder(PluginOf(device.device_type)->ContextOf(device.device_id));
    default:
      return nullptr;
  }
}

}  // namespace cupola
