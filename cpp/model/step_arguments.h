// The int32 arguments of a library's step, which change with every call.
//
// On the CPU each has an allocation of its own. On a device they lie in one, so that a step is one
// copy; where each begins depends on their lengths in coarse steps only, so that addresses repeat.
#ifndef CUPOLA_MODEL_STEP_ARGUMENTS_H_
#define CUPOLA_MODEL_STEP_ARGUMENTS_H_

#include <tvm/ffi/container/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "device/device_memory.h"

namespace cupola {

class StepArguments {
 public:
  // `memory`: null for the CPU; it has to outlive this.
  explicit StepArguments(const DeviceMemory* memory) : memory_(memory) {}

  // The room that a vector of this size gets on a device: powers of two.
  static int64_t RoomFor(size_t size);
  // Tensors with these values, which live until the next call.
  std::vector<tvm::ffi::Tensor> Place(const std::vector<const std::vector<int32_t>*>& arguments);

  // How often what was placed before has moved to other memory.
  int64_t num_moves() const { return num_moves_; }

 private:
  using Storage = std::optional<tvm::ffi::Tensor>;

  std::vector<tvm::ffi::Tensor> OnHost(const std::vector<const std::vector<int32_t>*>& arguments);
  std::vector<tvm::ffi::Tensor> InOnePiece(
      const std::vector<const std::vector<int32_t>*>& arguments);
  std::vector<tvm::ffi::Tensor> EachAlone(
      const std::vector<const std::vector<int32_t>*>& arguments);

  const DeviceMemory* memory_;
  std::vector<Storage> storages_;  // one an argument, or one
  std::vector<int32_t> packed_;
  int64_t unread_since_ = -1;  // waits for the device when `packed_` was given to it
  int64_t num_moves_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_STEP_ARGUMENTS_H_
