// The typed door to the compiled library of an encoder, on the CPU or another device.
#ifndef CUPOLA_MODEL_COMPILED_ENCODER_H_
#define CUPOLA_MODEL_COMPILED_ENCODER_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device/device_memory.h"
#include "model/encoder.h"
#include "model/library.h"
#include "model/step_arguments.h"

namespace cupola {

class CompiledEncoder : public Encoder {
 public:
  // Loads `library` and looks its function up, of which `weights` are arguments, in order: copied
  // to `device`, or used where they are if that is the CPU.
  CompiledEncoder(const std::string& library, DLDevice device, const std::string& embed_name,
                  const EncoderInfo& info, tvm::ffi::Array<tvm::ffi::Tensor> weights);

  const EncoderInfo& info() const override { return info_; }
  void Start(const TeamOptions& threads) override;
  void Stop() override;
  const float* Embed(const EncoderInput& input) override;

 private:
  tvm::ffi::Tensor Call(const EncoderInput& input);

  const EncoderInfo info_;
  const std::optional<DeviceMemory> memory_;  // nullopt: the CPU's
  const Library library_;
  tvm::ffi::Function embed_;
  tvm::ffi::Array<tvm::ffi::Tensor> weights_;
  std::unique_ptr<StepThreads> threads_;  // between Start and Stop, on the CPU
  StepArguments arguments_;
  tvm::ffi::Optional<tvm::ffi::Tensor> vectors_;  // keeps the last result alive
  std::vector<float> host_vectors_;               // of the last step on a device
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_COMPILED_ENCODER_H_
