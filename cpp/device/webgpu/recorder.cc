#include "device/webgpu/recorder.h"

#include <string>
#include <utility>
#include <vector>

namespace cupola::wgpu {

namespace {

// Dispatches of one device, whose bind groups it keeps alive.
class Dispatches final : public Recording {
 public:
  explicit Dispatches(Context* context) : context_(context) {}
  ~Dispatches() override {
    const std::lock_guard<std::mutex> lock(context_->mutex);
    for (const Dispatch& one : dispatches_) context_->gpu.api().BindGroupRelease(one.arguments);
  }
  Dispatches(const Dispatches&) = delete;
  Dispatches& operator=(const Dispatches&) = delete;

  void Add(Context* context, const Dispatch& dispatch) {
    if (context != context_) Raise("a recording cannot use two WebGPU devices");
    context_->gpu.api().BindGroupAddRef(dispatch.arguments);
    dispatches_.push_back(dispatch);
  }

  void Replay() override {
    const std::lock_guard<std::mutex> lock(context_->mutex);
    try {
      for (const Dispatch& one : dispatches_) context_->commands.Add(one);
      context_->gpu.Check("calling kernels again");
    } catch (...) {
      context_->commands.Abandon();
      throw;
    }
  }

 private:
  Context* const context_;
  std::vector<Dispatch> dispatches_;
};

thread_local Dispatches* current = nullptr;

class DispatchRecorder final : public Recorder {
 public:
  explicit DispatchRecorder(Context* context) : context_(context) {}

  std::unique_ptr<Recording> Record(const std::function<void()>& launches) override {
    auto recording = std::make_unique<Dispatches>(context_);
    struct Scope {
      explicit Scope(Dispatches* recording) { current = recording; }
      ~Scope() { current = nullptr; }
    };
    const Scope scope(recording.get());
    launches();
    return recording;
  }

 private:
  Context* const context_;
};

}  // namespace

std::unique_ptr<Recorder> MakeRecorder(int device) {
  return std::make_unique<DispatchRecorder>(ContextOf(device));
}

bool IsRecording() { return current != nullptr; }

void Remember(Context* context, const Dispatch& dispatch) { current->Add(context, dispatch); }

void RefuseWhileRecording(const char* doing) {
  if (current != nullptr) Raise(std::string(doing) + " cannot be recorded");
}

}  // namespace cupola::wgpu
