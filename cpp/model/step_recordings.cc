#include "model/step_recordings.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <utility>

#include "model/library.h"
#include "support/failpoint.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

// The tensor without a hold on its memory, which the next step may use.
ffi::Tensor Unheld(const ffi::Tensor& tensor) {
  struct Same {
    const DLTensor* original;
    void AllocData(DLTensor* tensor) {
      tensor->data = original->data;
      tensor->byte_offset = original->byte_offset;
    }
    void FreeData(DLTensor*) {}
  };
  return ffi::Tensor::FromNDAlloc(Same{tensor.GetDLTensorPtr()}, tensor.shape(), tensor.dtype(),
                                  tensor.device());
}

}  // namespace

StepRecordings::StepRecordings(std::unique_ptr<Recorder> recorder, size_t most)
    : recorder_(std::move(recorder)), most_(most) {}

ffi::Tensor StepRecordings::Run(const Key& key, const Call& call) {
  const bool again = steps_.count(key) > 0;
  Step* step = Find(key);
  if (again && step->recording == nullptr && recorder_ != nullptr) Record(call, step);
  if (step->recording != nullptr) {
    step->recording->Replay();
    ++counts_.replayed;
    return *step->result;
  }
  ++counts_.called;
  const StepMemory::Scope scope(&memory_);
  return Unheld(call());
}

StepRecordings::Step* StepRecordings::Find(const Key& key) {
  if (steps_.count(key) == 0 && steps_.size() >= most_) {
    steps_.erase(std::min_element(steps_.begin(), steps_.end(), [](const auto& a, const auto& b) {
      return a.second.last_run < b.second.last_run;
    }));
  }
  Step* step = &steps_[key];
  step->last_run = ++num_runs_;
  return step;
}

void StepRecordings::Record(const Call& call, Step* step) {
  const StepMemory::Scope scope(&memory_);
  try {
    const auto launches = [&] {
      Failpoint("record");
      step->result = Unheld(call());
    };
    step->recording = Translated([&] { return recorder_->Record(launches); });
    ++counts_.recorded;
  } catch (const std::exception& error) {
    recorder_ = nullptr;
    std::fprintf(stderr, "cupola: the device's steps are not recorded any more: %s\n",
                 error.what());
  }
}

void StepRecordings::Drop() {
  steps_.clear();
  memory_.Release();
}

}  // namespace cupola
