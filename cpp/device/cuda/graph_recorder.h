// Recording on CUDA: graphs.
#ifndef CUPOLA_DEVICE_CUDA_GRAPH_RECORDER_H_
#define CUPOLA_DEVICE_CUDA_GRAPH_RECORDER_H_

#include <memory>

#include "device/recording.h"

namespace cupola {

// Throws std::runtime_error where TVM's runtime cannot use CUDA.
std::unique_ptr<Recorder> MakeGraphRecorder(DLDevice device);

}  // namespace cupola

#endif  // CUPOLA_DEVICE_CUDA_GRAPH_RECORDER_H_
