// The GPU that is stood in for: what it is called and where its limits are.
//
// From the CUDA C++ Programming Guide's table of compute capabilities, and the makers' data sheets
// of A100, L40, H100 and B200.
#ifndef CUPOLA_TESTS_CUDA_MACHINE_MODEL_H_
#define CUPOLA_TESTS_CUDA_MACHINE_MODEL_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <optional>
#include <string>

namespace machine {

constexpr int kWarp = 32;
constexpr int kMostThreads = 1024;             // of a block
constexpr int kMostX = 1024, kMostZ = 64;      // threads of a block in x and y, and in z
constexpr unsigned kMostGridX = 2147483647;    // blocks in x
constexpr unsigned kMostGridYZ = 65535;        // blocks in y, and in z
constexpr int kRegisters = 65536;              // of a block
constexpr int kRegisterUnit = 256;             // that a warp's registers are a multiple of
constexpr size_t kSharedBytes = 48 * 1024;     // of a block that asked for no more
constexpr size_t kReservedSharedBytes = 1024;  // of each block, the system's own
constexpr size_t kMostParameterBytes = 32764;  // of a kernel

struct Model {
  int architecture;  // 90: sm_90
  int multiprocessors;
  size_t most_shared_bytes;  // of a block that asked for more
  size_t cache_bytes;
  size_t memory_bytes;

  int major() const { return architecture / 10; }
  int minor() const { return architecture % 10; }
  std::string name() const;
  // Nothing for what it does not know.
  std::optional<int> Attribute(int attribute) const;
  cudaDeviceProp Properties() const;
};

// The one that the environment asks for: CUPOLA_CUDA_ARCH (sm_80, sm_89, sm_90, sm_100; sm_90 if
// it is not set) and CUPOLA_CUDA_MEMORY (MiB; 256).
Model ModelOfEnvironment();

}  // namespace machine

#endif  // CUPOLA_TESTS_CUDA_MACHINE_MODEL_H_
