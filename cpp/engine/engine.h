// The engine: one thread that turns requests into tokens, step by step.
//
// Doors for other threads: Add, Abort, Take, stats, Drain, Close. Commands reach the thread through
// a lock-free queue, results leave it through the output queue; between the two nothing is shared
// but a few atomics. It knows no text, no Python and no interpreter lock.
//
// Every accepted request ends with exactly one finishing delta, whatever happens: a failed step
// ends its own requests, an engine that keeps failing ends all of them, and so does Close.
#ifndef CUPOLA_ENGINE_ENGINE_H_
#define CUPOLA_ENGINE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/delta.h"
#include "engine/device_sample_stage.h"
#include "engine/limits.h"
#include "engine/output_queue.h"
#include "engine/request.h"
#include "engine/sample_stage.h"
#include "engine/scheduler.h"
#include "engine/service_thread.h"
#include "engine/stats.h"
#include "engine/step_times.h"
#include "model/model.h"
#include "support/mpsc_queue.h"

namespace cupola {

struct EngineOptions {
  Limits limits;
  int32_t max_queue = 0;  // most requests waiting
  TeamOptions threads;    // of the model
  bool check_every_step = false;
};

// Why a request was not accepted. The order is part of the FFI contract.
enum class Refusal : int32_t { kNone = 0, kQueueFull, kDraining, kTooLong, kBadToken, kStopped };

class Engine {
 public:
  // Starts the thread; returns when the model is ready, and throws what stopped it from being so.
  Engine(std::shared_ptr<Model> model, const EngineOptions& options);
  ~Engine();

  Refusal Add(std::unique_ptr<Request> request);
  void Abort(int64_t request_id);
  // Lets the prefix go that a request with these tokens pinned. Tokens that nobody pinned, and none
  // at all, are ignored.
  void Unpin(uint64_t seed, std::vector<int32_t> tokens);
  DeltaBatch Take() { return output_.Take(); }
  int output_fd() const { return output_.fd(); }

  EngineStats stats() const;
  StepHistograms histograms() const { return step_times_.Get(); }
  // Seconds since the thread last gave a sign of life; 0 while it has nothing to do.
  double last_step_age() const { return thread_.age(); }
  // False once the engine has given up; `failure` then says why.
  bool alive() const { return thread_.alive(); }
  std::string failure() const { return thread_.failure(); }

  // Refuses new requests from here on; those accepted run to their end. Returns at once.
  void Drain() { thread_.Drain(); }
  // Ends all requests with kAbort, stops the thread and waits for it. May be called again.
  void Close();

 private:
  // A request to add; or tokens to unpin; or else the id of a request to abort.
  struct Command {
    std::unique_ptr<Request> request;
    std::vector<int32_t> unpinned;
    uint64_t unpin_seed = 0;
    int64_t abort_id = 0;
  };

  void Send(Command command);
  void Run();
  void Loop();
  void Step();
  void DrainCommands();
  void Prepare(const StepPlan& plan);
  void Forward(const StepPlan& plan);
  const std::vector<Sampled>& Sample(const StepPlan& plan);
  void Publish();
  void OnStepFailed(const std::string& message);
  void Die(const std::string& message);
  void EndLeftovers();

  const std::shared_ptr<Model> model_;
  const EngineOptions options_;

  // Shared with other threads.
  ServiceThread thread_;
  MpscQueue<Command> commands_;
  OutputQueue output_;
  StatsBoard board_;
  StepTimes step_times_;

  // The thread's own.
  Scheduler scheduler_;
  DeviceSampler* const device_sampler_;  // null: the processor samples
  SampleStage sample_stage_;
  DeviceSampleStage device_sample_stage_;
  StepInput input_;
  LogitsView logits_;
  DeltaBatch outbox_;
  int64_t num_steps_ = 0;
  double step_seconds_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_ENGINE_H_
