#include "device/cuda/graph_recorder.h"

#include <exception>
#include <stdexcept>
#include <string>

#include "device/cuda/cuda_runtime.h"
#include "device/device_api.h"

namespace cupola {

namespace {

void Check(cuda::Error error, const char* doing) {
  if (error == 0) return;
  const cuda::Runtime& runtime = cuda::LoadedRuntime();
  runtime.GetLastError();  // so that nobody else is told of it
  throw std::runtime_error(std::string("CUDA: ") + runtime.GetErrorString(error) + " (while " +
                           doing + ")");
}

class GraphRecording final : public Recording {
 public:
  GraphRecording(DLDevice device, DeviceApi* api, cuda::Graph graph) : device_(device), api_(api) {
    Check(cuda::LoadedRuntime().GraphInstantiate(&graph_, graph, 0), "preparing a graph");
  }
  // One that still runs is freed when it is done.
  ~GraphRecording() override { cuda::LoadedRuntime().GraphExecDestroy(graph_); }
  GraphRecording(const GraphRecording&) = delete;
  GraphRecording& operator=(const GraphRecording&) = delete;

  void Replay() override {
    auto* stream = static_cast<cuda::Stream>(api_->GetCurrentStream(device_));
    Check(cuda::LoadedRuntime().GraphLaunch(graph_, stream), "launching a graph");
  }

 private:
  const DLDevice device_;
  DeviceApi* const api_;
  cuda::GraphExec graph_ = nullptr;
};

// The thread's kernels go to a stream that is captured: a stream of its own, since the default one,
// where all else goes, cannot be.
class Capture {
 public:
  Capture(DLDevice device, DeviceApi* api, void* stream)
      : device_(device), api_(api), before_(api->GetCurrentStream(device)), stream_(stream) {
    Check(cuda::LoadedRuntime().StreamBeginCapture(static_cast<cuda::Stream>(stream),
                                                   cuda::kCaptureModeRelaxed),
          "beginning to record");
    api_->SetStream(device_, stream_);
  }
  ~Capture() {
    if (!ended_) End();
    if (graph_ != nullptr) cuda::LoadedRuntime().GraphDestroy(graph_);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cuda::Graph Finish() {
    Check(End(), "recording");
    return graph_;
  }

 private:
  cuda::Error End() {
    ended_ = true;
    api_->SetStream(device_, before_);
    const cuda::Runtime& runtime = cuda::LoadedRuntime();
    const cuda::Error error = runtime.StreamEndCapture(static_cast<cuda::Stream>(stream_), &graph_);
    if (error != 0) runtime.GetLastError();
    return error;
  }

  const DLDevice device_;
  DeviceApi* const api_;
  void* const before_;
  void* const stream_;
  bool ended_ = false;
  cuda::Graph graph_ = nullptr;
};

class GraphRecorder final : public Recorder {
 public:
  explicit GraphRecorder(DLDevice device)
      : device_(device), api_(DeviceApiOf(device)), stream_(api_->CreateStream(device)) {}
  // A device that has died refuses, and a destructor must not throw.
  ~GraphRecorder() override {
    try {
      api_->FreeStream(device_, stream_);
    } catch (const std::exception&) {
    }
  }
  GraphRecorder(const GraphRecorder&) = delete;
  GraphRecorder& operator=(const GraphRecorder&) = delete;

  std::unique_ptr<Recording> Record(const std::function<void()>& launches) override {
    Capture capture(device_, api_, stream_);
    launches();
    return std::make_unique<GraphRecording>(device_, api_, capture.Finish());
  }

 private:
  const DLDevice device_;
  DeviceApi* const api_;
  void* const stream_;
};

}  // namespace

std::unique_ptr<Recorder> MakeGraphRecorder(DLDevice device) {
  cuda::LoadedRuntime();
  return std::make_unique<GraphRecorder>(device);
}

}  // namespace cupola
