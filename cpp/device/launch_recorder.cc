#include "device/launch_recorder.h"

#include <string>
#include <utility>
#include <vector>

#include "device/device_error.h"

namespace cupola {

namespace {

class Launches final : public Recording {
 public:
  explicit Launches(DeviceContext* context) : context_(context) {}
  ~Launches() override {
    const std::lock_guard<std::mutex> lock(context_->mutex);  // of what they keep alive
    launches_.clear();
  }
  Launches(const Launches&) = delete;
  Launches& operator=(const Launches&) = delete;

  void Add(DeviceContext* context, const Launch& launch) {
    if (context != context_) Raise("a recording cannot use two devices");
    launches_.push_back(launch);
  }

  void Replay() override {
    const std::lock_guard<std::mutex> lock(context_->mutex);
    try {
      for (const Launch& launch : launches_) launch();
    } catch (...) {
      context_->Abandon();
      throw;
    }
  }

 private:
  DeviceContext* const context_;
  std::vector<Launch> launches_;
};

thread_local Launches* current = nullptr;

class LaunchRecorder final : public Recorder {
 public:
  explicit LaunchRecorder(DeviceContext* context) : context_(context) {}

  std::unique_ptr<Recording> Record(const std::function<void()>& launches) override {
    auto recording = std::make_unique<Launches>(context_);
    struct Scope {
      explicit Scope(Launches* recording) { current = recording; }
      ~Scope() { current = nullptr; }
    };
    const Scope scope(recording.get());
    launches();
    return recording;
  }

 private:
  DeviceContext* const context_;
};

}  // namespace

std::unique_ptr<Recorder> MakeLaunchRecorder(DeviceContext* context) {
  return std::make_unique<LaunchRecorder>(context);
}

void MakeOrRemember(DeviceContext* context, const Launch& launch) {
  if (current != nullptr) {
    current->Add(context, launch);
  } else {
    launch();
  }
}

void RefuseWhileRecording(const char* doing) {
  if (current != nullptr) Raise(std::string(doing) + " cannot be recorded");
}

bool IsRecording() { return current != nullptr; }

}  // namespace cupola
