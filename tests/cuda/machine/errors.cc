#include <iterator>

#include "context.h"

namespace machine {

namespace {

struct Known {
  cudaError_t error;
  const char* name;
  const char* text;
};

#define KNOWN(name, text) {name, #name, text}
constexpr Known kErrors[] = {
    KNOWN(cudaSuccess, "no error"),
    KNOWN(cudaErrorInvalidValue, "invalid argument"),
    KNOWN(cudaErrorMemoryAllocation, "out of memory"),
    KNOWN(cudaErrorInitializationError, "initialization error"),
    KNOWN(cudaErrorInvalidDevice, "invalid device ordinal"),
    KNOWN(cudaErrorInvalidKernelImage, "device kernel image is invalid"),
    KNOWN(cudaErrorDeviceUninitialized, "invalid device context"),
    KNOWN(cudaErrorNoKernelImageForDevice,
          "no kernel image is available for execution on the device"),
    KNOWN(cudaErrorInvalidPtx, "a PTX JIT compilation failed"),
    KNOWN(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    KNOWN(cudaErrorIllegalState, "an operation was attempted in an illegal state"),
    KNOWN(cudaErrorSymbolNotFound, "named symbol not found"),
    KNOWN(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    KNOWN(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    KNOWN(cudaErrorLaunchFailure, "unspecified launch failure"),
    KNOWN(cudaErrorNotSupported, "operation not supported"),
    KNOWN(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    KNOWN(cudaErrorStreamCaptureInvalidated,
          "operation failed due to a previous error during capture"),
    KNOWN(cudaErrorStreamCaptureImplicit,
          "operation would make the legacy stream depend on a capturing blocking stream"),
    KNOWN(cudaErrorStreamCaptureWrongThread,
          "attempt to terminate a thread-local capture sequence from another thread"),
    KNOWN(cudaErrorUnknown, "made to fail"),
};
#undef KNOWN

const Known& Find(cudaError_t error) {
  for (const Known& known : kErrors) {
    if (known.error == error) return known;
  }
  return kErrors[std::size(kErrors) - 1];
}

}  // namespace

const char* NameOf(cudaError_t error) { return Find(error).name; }
const char* TextOf(cudaError_t error) { return Find(error).text; }

}  // namespace machine
