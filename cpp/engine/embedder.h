// The runner of an encoder: one thread that turns texts into vectors, step by step.
//
// Doors for other threads: Add, Abort, Take, stats, Drain, Close. Every accepted job ends with
// exactly one result, whatever happens: a failed step is tried again text by text, so that an error
// ends the job of the text that causes it; an encoder that keeps failing ends all of them, and so
// does Close.
#ifndef CUPOLA_ENGINE_EMBEDDER_H_
#define CUPOLA_ENGINE_EMBEDDER_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/embed_queue.h"
#include "engine/service_thread.h"
#include "model/encoder.h"
#include "support/event_fd.h"
#include "support/mpsc_queue.h"

namespace cupola {

struct EmbedderOptions {
  int32_t max_queue = 0;  // most jobs that wait or run
  TeamOptions threads;
};

// Why a job was not accepted. The order is part of the FFI contract.
enum class EmbedRefusal : int32_t {
  kNone = 0,
  kQueueFull,
  kDraining,
  kTooLong,
  kBadToken,
  kStopped
};

struct EmbedderStats {
  EmbedCounters counters;
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t steps = 0;
  double step_seconds = 0;   // sum over all steps
  double last_step_age = 0;  // seconds since the last sign of life; 0 while there is nothing to do
};

class Embedder {
 public:
  // Starts the thread; returns when the encoder is ready, and throws what stopped it.
  Embedder(std::shared_ptr<Encoder> encoder, const EmbedderOptions& options);
  ~Embedder();

  // Every text has to have a token at least.
  EmbedRefusal Add(EmbedJob job);
  void Abort(int64_t id);
  // Results since the last call, and the descriptor is quiet again.
  std::vector<EmbedResult> Take();
  int output_fd() const { return output_ready_.fd(); }

  EmbedderStats stats() const;
  // False once it has given up; `failure` then says why.
  bool alive() const { return thread_.alive(); }
  std::string failure() const { return thread_.failure(); }

  // Refuses new jobs from here on; those accepted run to their end. Returns at once.
  void Drain() { thread_.Drain(); }
  // Ends all jobs with kAborted, stops the thread and waits for it. May be called again.
  void Close();

 private:
  // A job to add, or else the id of one to abort.
  struct Command {
    std::unique_ptr<EmbedJob> job;
    int64_t abort_id = 0;
  };

  void Send(Command command);
  void Run();
  void Step();
  void EmbedOneByOne(const std::vector<EmbedQueue::Pick>& picks);
  void Embed(const std::vector<EmbedQueue::Pick>& picks);
  void DrainCommands();
  void Die(const std::string& message);
  void Publish();
  void EndLeftovers();

  const std::shared_ptr<Encoder> encoder_;
  const EmbedderOptions options_;

  // Shared with other threads.
  ServiceThread thread_;
  MpscQueue<Command> commands_;
  EventFd output_ready_;
  mutable std::mutex mutex_;  // of the two below
  std::vector<EmbedResult> output_;
  EmbedderStats stats_;

  // The thread's own.
  EmbedQueue queue_;
  int64_t num_steps_ = 0;
  double step_seconds_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_EMBEDDER_H_
