// Steps of a device that come again: called the first time, recorded the second, then replayed.
//
// A step is known by its key, which has to say everything that its kernels depend on besides the
// contents of memory: the lengths and the addresses of its arguments. For one thread.
#ifndef CUPOLA_MODEL_STEP_RECORDINGS_H_
#define CUPOLA_MODEL_STEP_RECORDINGS_H_

#include <tvm/ffi/container/tensor.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device/recording.h"
#include "model/step_memory.h"

namespace cupola {

// How steps ran. Any thread may look.
struct StepCounts {
  std::atomic<int64_t> called{0};
  std::atomic<int64_t> recorded{0};
  std::atomic<int64_t> replayed{0};
};

class StepRecordings {
 public:
  using Key = std::vector<int64_t>;
  using Call = std::function<tvm::ffi::Tensor()>;

  // Keeps at most `most` steps; the one that was not needed for longest goes first.
  StepRecordings(std::unique_ptr<Recorder> recorder, size_t most);

  // The result of `call`, which is a step of a library's: a tensor whose contents live until the
  // next Run or Drop. Throws what `call` throws. Where recording fails steps are called from then
  // on, and standard error says so.
  tvm::ffi::Tensor Run(const Key& key, const Call& call);
  // Forgets all steps and gives their memory back: for when an address that is in no key changes.
  void Drop();

  const StepCounts& counts() const { return counts_; }

 private:
  struct Step {
    std::unique_ptr<Recording> recording;    // null: it was called once
    std::optional<tvm::ffi::Tensor> result;  // of the recording
    int64_t last_run = 0;
  };

  Step* Find(const Key& key);
  void Record(const Call& call, Step* step);

  std::unique_ptr<Recorder> recorder_;  // null once it has failed
  const size_t most_;
  StepMemory memory_;  // outlives what was recorded in it
  std::map<Key, Step> steps_;
  int64_t num_runs_ = 0;
  StepCounts counts_;
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_STEP_RECORDINGS_H_
