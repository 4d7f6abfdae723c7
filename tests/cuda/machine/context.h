// What the two libraries tell each other besides the machine: who has a context, and errors' names.
#ifndef CUPOLA_TESTS_CUDA_MACHINE_CONTEXT_H_
#define CUPOLA_TESTS_CUDA_MACHINE_CONTEXT_H_

#include <cuda_runtime_api.h>

namespace machine {

// Gives the calling thread the device's context.
void EnterContext();

// Of an error of either library: their numbers agree where both have one.
const char* NameOf(cudaError_t error);
const char* TextOf(cudaError_t error);

}  // namespace machine

#endif  // CUPOLA_TESTS_CUDA_MACHINE_CONTEXT_H_
