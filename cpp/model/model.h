// The door to a model: rows of tokens in, rows of logits out. It knows no requests.
#ifndef CUPOLA_MODEL_MODEL_H_
#define CUPOLA_MODEL_MODEL_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "model/device_sampler.h"
#include "model/step_input.h"
#include "support/thread_team.h"

namespace cupola {

struct ModelInfo {
  int32_t vocab_size = 0;
  int32_t page_size = 0;
  // Tokens that the layers with a window see, and which layers these are. 0: every layer sees
  // everything.
  int32_t window = 0;
  std::vector<int32_t> window_layers;
  int32_t max_step_tokens = 0;  // most rows of one forward
  int32_t max_batch = 0;        // most sequences of one forward
};

// Rows of logits that live until the next Forward. The sampler may write into them.
struct LogitsView {
  float* data = nullptr;
  int64_t num_rows = 0;
  int64_t stride = 0;  // floats from one row to the next
  float* row(int64_t i) const { return data + i * stride; }
};

class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelInfo& info() const = 0;

  // A model has one KV cache, so it serves one engine at a time. False if it is claimed already.
  bool Claim() { return !claimed_.exchange(true); }
  void Release() { claimed_ = false; }

  // Makes room for `num_pages` pages of keys and values, and for `num_window_pages` in layers with
  // a window (contents undefined), and prepares the calling thread, the one that will call Forward,
  // and the threads that help it.
  virtual void Start(int32_t num_pages, int32_t num_window_pages, const TeamOptions& threads) = 0;
  // Ends those threads, until the next Start.
  virtual void Stop() {}

  // Copies pages within the cache, one after the other.
  virtual void CopyPages(const std::vector<PageCopy>& copies) = 0;

  // Writes the keys and values of the step's rows into their slots, and returns the logits of
  // `out_rows`. A row's logits depend on its own sequence only. Throws on failure; the step's
  // slots are then undefined, all others intact.
  virtual LogitsView Forward(const StepInput& input) = 0;
  // Null where the device does not sample; else it lives as long as the model.
  virtual DeviceSampler* device_sampler() { return nullptr; }

 private:
  std::atomic<bool> claimed_{false};
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_MODEL_H_
