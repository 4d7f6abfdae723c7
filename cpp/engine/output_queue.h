// From the engine thread to whoever reads: deltas in order, and a descriptor to wait for them.
#ifndef CUPOLA_ENGINE_OUTPUT_QUEUE_H_
#define CUPOLA_ENGINE_OUTPUT_QUEUE_H_

#include <mutex>

#include "engine/delta.h"
#include "support/event_fd.h"

namespace cupola {

class OutputQueue {
 public:
  // Hands over `*batch` and empties it; wakes the reader if there is anything in it.
  void Publish(DeltaBatch* batch);
  // Everything published since the last call, and the descriptor is quiet again. Never blocks for
  // longer than a copy of one batch.
  DeltaBatch Take();
  // Makes the descriptor readable without a delta: something other than a request has changed.
  void Wake() { ready_.Signal(); }
  int fd() const { return ready_.fd(); }

 private:
  std::mutex mutex_;
  DeltaBatch pending_;
  EventFd ready_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_OUTPUT_QUEUE_H_
