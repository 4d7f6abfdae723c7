#include "engine/output_queue.h"

#include <utility>

namespace cupola {

void OutputQueue::Publish(DeltaBatch* batch) {
  if (batch->empty()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    pending_.Append(*batch);
  }
  batch->Clear();
  ready_.Signal();
}

DeltaBatch OutputQueue::Take() {
  // Cleared first: what is published from here on signals again, so no delta is ever left unseen.
  ready_.Clear();
  DeltaBatch taken;
  const std::lock_guard<std::mutex> lock(mutex_);
  std::swap(taken, pending_);
  return taken;
}

}  // namespace cupola
