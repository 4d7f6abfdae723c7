// What cuModuleLoadData is given: PTX, or a container ("fat binary") with PTX and machine code.
//
// Kernels are executed from PTX. Of machine code it reads what the driver would: for which devices
// it is, and how many registers each kernel takes.
#ifndef CUPOLA_TESTS_CUDA_MACHINE_CODE_H_
#define CUPOLA_TESTS_CUDA_MACHINE_CODE_H_

#include <cuda.h>

#include <map>
#include <memory>
#include <string>

#include "ptx/machine.h"

namespace machine {

// What a kernel takes, which bounds its launches.
struct Bounds {
  size_t shared_bytes = 0;  // that it declares
  int threads = 0;          // most of a block that it declares; 0: any number
  int registers = 0;        // of a thread; 0: unknown, for there is no machine code
};

struct Code {
  std::unique_ptr<ptx::Program> program;
  std::map<std::string, Bounds> kernels;
  bool loaded = true;  // until its module is unloaded
};

// Finds what a device of this architecture (90: sm_90) would execute. On failure `code` is as it
// was, and `why` a sentence.
CUresult Load(const void* image, int architecture, Code* code, std::string* why);

}  // namespace machine

#endif  // CUPOLA_TESTS_CUDA_MACHINE_CODE_H_
