// Doors for tests: recordings of a device, and when steps are recorded. cupola.testing.*
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/reflection/registry.h>

#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "device/recording.h"
#include "model/library.h"
#include "model/step_recordings.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

// What `launches` launches on a device, as a function that replays it.
ffi::Function Record(DLDevice device, ffi::Function launches) {
  return Translated([&] {
    const std::unique_ptr<Recorder> recorder = RecorderOf(device);
    if (recorder == nullptr) throw std::runtime_error("devices of this kind cannot record");
    const std::shared_ptr<Recording> recording = recorder->Record([&] { launches(); });
    return ffi::Function::FromTyped([recording] { recording->Replay(); });
  });
}

// A recorder of nothing. It fails when it is asked for the time `fail_at`, counted from 1.
class CountingRecorder final : public Recorder {
 public:
  CountingRecorder(int64_t fail_at, int64_t* num_alive)
      : fail_at_(fail_at), num_alive_(num_alive) {}

  std::unique_ptr<Recording> Record(const std::function<void()>& launches) override {
    launches();
    if (++num_asked_ == fail_at_) throw std::runtime_error("this one fails");
    struct Alive final : Recording {
      explicit Alive(int64_t* count) : count(count) { ++*count; }
      ~Alive() override { --*count; }
      void Replay() override {}
      int64_t* count;
    };
    return std::make_unique<Alive>(num_alive_);
  }

 private:
  const int64_t fail_at_;
  int64_t* const num_alive_;
  int64_t num_asked_ = 0;
};

// Runs steps with these keys one after the other; a negative one drops everything. Returns for each
// whether its step was called (0), recorded (1) or replayed (2), and how many recordings were alive
// after it.
ffi::Shape RunSteps(int64_t most, int64_t fail_at, ffi::Shape keys) {
  int64_t num_alive = 0;
  StepRecordings steps(std::make_unique<CountingRecorder>(fail_at, &num_alive),
                       static_cast<size_t>(most));
  float value = 0;
  struct There {
    float* value;
    void AllocData(DLTensor* tensor) { tensor->data = value; }
    void FreeData(DLTensor*) {}
  };
  const auto call = [&] {
    return ffi::Tensor::FromNDAlloc(There{&value}, ffi::Shape({1}), DLDataType{kDLFloat, 32, 1},
                                    DLDevice{kDLCPU, 0});
  };
  std::vector<int64_t> happened;
  for (const int64_t key : keys) {
    const int64_t recorded = steps.counts().recorded;
    const int64_t called = steps.counts().called;
    if (key < 0) {
      steps.Drop();
    } else if (steps.Run({key}, call).data_ptr() != &value) {
      throw std::logic_error("a step returned something else");
    }
    const int64_t how = steps.counts().called > called       ? 0
                        : steps.counts().recorded > recorded ? 1
                                                             : 2;
    happened.insert(happened.end(), {how, num_alive});
  }
  return ffi::Shape(happened);
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef().def("cupola.testing.record", Record).def("cupola.testing.run_steps", RunSteps);
}

}  // namespace cupola
