// What a WebGPU device is to do, collected and submitted together.
//
// Kernels and copies are recorded in order. They are submitted when somebody waits or reads, when
// memory that they may use is written or freed, or when there are very many. So the step of a model
// is one submission. For one thread at a time.
#ifndef CUPOLA_DEVICE_WEBGPU_COMMANDS_H_
#define CUPOLA_DEVICE_WEBGPU_COMMANDS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "device/webgpu/gpu.h"
#include "device/webgpu/memory.h"
#include "device/webgpu/profiler.h"

namespace cupola::wgpu {

struct Grid {
  uint32_t x, y, z;
};

// Released with its last owner.
using SharedGroup = std::shared_ptr<std::remove_pointer_t<BindGroup>>;

// A call of a kernel.
struct Dispatch {
  const std::string* kernel;  // its name, which lives as long as the library
  ComputePipeline pipeline;
  SharedGroup arguments;
  std::vector<uint32_t> scalars;  // at most Commands::kMaxUniformBytes
  Grid grid;
};

class Commands {
 public:
  explicit Commands(Gpu* gpu);

  // The buffer of the kernels' scalar arguments.
  Buffer uniforms() const { return uniforms_.get(); }
  static constexpr uint64_t kMaxUniformBytes = 256;

  void Add(const Dispatch& dispatch);
  void Copy(const Place& from, const Place& to, uint64_t bytes);
  // From host memory, at once as seen from there.
  void Upload(const void* from, const Place& to, uint64_t bytes);
  // To host memory; waits for everything before it.
  void Download(const Place& from, void* to, uint64_t bytes);

  void Submit();
  void Wait();
  // Drops what is recorded and not submitted, and what went wrong with it.
  void Abandon();

  // Measures every kernel from now on; throws ffi::Error if the device cannot.
  void StartProfile();
  // Waits; microseconds and calls of each kernel since StartProfile.
  std::vector<KernelTime> StopProfile();

 private:
  // Keeps scalars for one kernel of this submission; returns where in the buffer they will be. May
  // submit, so it comes before the kernel is encoded.
  uint32_t AddUniform(const std::vector<uint32_t>& scalars);
  CommandEncoder Encoder();
  ComputePassEncoder Pass(const std::string& kernel);
  void EndPass();
  void CopyWithin(const Place& from, const Place& to, uint64_t bytes);

  Gpu* gpu_;
  OwnedBuffer uniforms_;
  std::vector<uint8_t> uniform_data_;   // of the kernels that are recorded
  std::optional<OwnedBuffer> staging_;  // mapped to be read
  std::optional<OwnedBuffer> scratch_;  // between two places of one buffer
  CommandEncoder encoder_ = nullptr;
  ComputePassEncoder pass_ = nullptr;
  uint64_t pending_uploads_ = 0;        // bytes since the last submission
  std::unique_ptr<Profiler> profiler_;  // null: nobody asks
};

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_COMMANDS_H_
