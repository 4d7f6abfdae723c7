// What the device is asked to do, in the order in which it has to be done, and no earlier than it
// has to be: whoever forgets to wait finds that nothing has happened.
//
// Streams, events and graphs are made of it. They know no kernels and no memory.
#ifndef CUPOLA_TESTS_CUDA_MACHINE_WORK_H_
#define CUPOLA_TESTS_CUDA_MACHINE_WORK_H_

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace machine {

struct Work;
using WorkPtr = std::shared_ptr<Work>;

// A piece of work, and what has to be done before it.
struct Work {
  std::vector<WorkPtr> after;
  std::function<void()> run;
  bool done = false;
};

// Does a piece of work and what it comes after. `run` throws on failure; it is done nevertheless.
void Finish(const WorkPtr& work);

// What was captured: the steps of one stream, in order.
struct Captured {
  std::vector<std::function<void()>> steps;
};

}  // namespace machine

// CUDA's opaque types.
struct CUstream_st {
  bool blocking = true;  // waits for the legacy stream, and it for this one
  machine::WorkPtr last;
  // While it captures: into what, how, and by whom it was begun.
  std::unique_ptr<machine::Captured> captured;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  bool invalidated = false;
};
struct CUevent_st {
  machine::WorkPtr mark;  // null: never recorded
};
struct CUgraph_st {
  machine::Captured captured;
};
struct CUgraphExec_st {
  std::shared_ptr<const machine::Captured> captured;
  machine::WorkPtr last;  // it does not run beside itself
};

#endif  // CUPOLA_TESTS_CUDA_MACHINE_WORK_H_
