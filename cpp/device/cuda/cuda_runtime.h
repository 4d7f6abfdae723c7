// The functions of CUDA's runtime library that record and replay. TVM's runtime for CUDA has loaded
// the library, so that building needs no CUDA. Names and arguments are those of
// cuda_runtime_api.h, without `cuda`; tests/cuda compares them where that header is installed.
#ifndef CUPOLA_DEVICE_CUDA_CUDA_RUNTIME_H_
#define CUPOLA_DEVICE_CUDA_CUDA_RUNTIME_H_

namespace cupola::cuda {

using Stream = struct CUstream_st*;
using Graph = struct CUgraph_st*;
using GraphExec = struct CUgraphExec_st*;
using Error = int;  // 0: none

// Other threads may do what they want meanwhile, memory included.
constexpr int kCaptureModeRelaxed = 2;

struct Runtime {
  Error (*StreamBeginCapture)(Stream, int mode);
  Error (*StreamEndCapture)(Stream, Graph*);
  Error (*GraphInstantiate)(GraphExec*, Graph, unsigned long long flags);  // NOLINT: CUDA's type
  Error (*GraphLaunch)(GraphExec, Stream);
  Error (*GraphExecDestroy)(GraphExec);
  Error (*GraphDestroy)(Graph);
  Error (*GetLastError)();
  const char* (*GetErrorString)(Error);
};

// Of the library that is loaded. Throws std::runtime_error with one sentence where none is, or if
// it is another version.
const Runtime& LoadedRuntime();

}  // namespace cupola::cuda

#endif  // CUPOLA_DEVICE_CUDA_CUDA_RUNTIME_H_
