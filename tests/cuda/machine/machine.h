// The machine behind both libraries: one device, one context, and everybody's streams.
//
// libcuda.so.1 owns it and libcudart.so.13 uses it. Every function of both holds its lock. It knows
// no function of CUDA's by name: driver.cc and runtime.cc are their signatures.
#ifndef CUPOLA_TESTS_CUDA_MACHINE_MACHINE_H_
#define CUPOLA_TESTS_CUDA_MACHINE_MACHINE_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "code.h"
#include "journal.h"
#include "memory.h"
#include "model.h"
#include "work.h"

// CUDA's opaque types.
struct CUfunc_st {
  std::shared_ptr<const machine::Code> code;
  std::string name;
  machine::Bounds bounds;
  int most_dynamic_shared_bytes = 0;
};
struct CUmod_st {
  std::shared_ptr<machine::Code> code;
  std::map<std::string, std::unique_ptr<CUfunc_st>> functions;
};

namespace machine {

class Machine {
 public:
  static Machine& Get();

  const Model& model() const { return model_; }
  Memory& memory() { return memory_; }
  Journal& journal() { return journal_; }
  std::mutex& mutex() { return mutex_; }

  // The error that the context died of; cudaSuccess while it lives. Nothing clears it.
  cudaError_t dead() const { return dead_; }
  void Die(const std::string& why);

  // Streams. Null is the legacy default stream; what is no stream is null here too.
  CUstream_st* StreamOf(cudaStream_t handle);
  CUstream_st* MakeStream(bool blocking);
  void DestroyStream(CUstream_st* stream);
  // Work behind all that was asked of the stream, or a step of what it captures. The error is why
  // it cannot be.
  cudaError_t Enqueue(CUstream_st* stream, std::function<void()> run);
  // An event's mark: the end of what was asked of a stream so far.
  WorkPtr MarkOf(CUstream_st* stream);
  // Lets a stream wait for work of another one.
  void WaitFor(CUstream_st* stream, const WorkPtr& mark);
  // Does the work, and tells whether the context lives.
  cudaError_t Await(const WorkPtr& work);
  cudaError_t AwaitStream(CUstream_st* stream);
  cudaError_t AwaitDevice();
  bool capturing() const { return num_captures_ > 0; }

  // Capture.
  cudaError_t BeginCapture(CUstream_st* stream, cudaStreamCaptureMode mode);
  cudaError_t EndCapture(CUstream_st* stream, Captured* captured);
  // What a call does to captures that are going on: nothing if it is harmless, else it ends them.
  cudaError_t Unsafe();
  cudaError_t Launch(CUgraphExec_st* graph, CUstream_st* stream);
  int num_graphs = 0;  // alive, of both kinds

  // Kernels.
  CUresult LoadModule(const void* image, CUmodule* module);
  CUresult FindFunction(CUmodule module, const char* name, CUfunction* function);
  CUresult UnloadModule(CUmodule module);
  CUresult SetMostShared(CUfunction function, int bytes);
  CUresult LaunchKernel(const CUlaunchConfig& config, CUfunction function, void** arguments);

 private:
  Machine();
  std::vector<WorkPtr> Before(CUstream_st* stream) const;
  bool Fits(const CUlaunchConfig& config, const CUfunc_st& function) const;

  const Model model_;
  Memory memory_;
  Journal journal_;
  std::mutex mutex_;
  cudaError_t dead_ = cudaSuccess;
  std::unique_ptr<CUstream_st> legacy_;
  std::set<CUstream_st*> streams_;
  std::vector<WorkPtr> left_;  // by streams that are no more
  std::set<CUmodule> modules_;
  int num_captures_ = 0;
  unsigned num_launches_ = 0;
};

}  // namespace machine

#endif  // CUPOLA_TESTS_CUDA_MACHINE_MACHINE_H_
