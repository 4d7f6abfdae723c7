#include "model/step_arguments.h"

#include <tvm/ffi/container/shape.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

constexpr DLDevice kCpu{kDLCPU, 0};
constexpr DLDataType kInt32{kDLInt, 32, 1};
constexpr size_t kAlignment = 64;  // what compiled kernels expect of their arguments
constexpr int64_t kInt32s = 64;    // the least room of an argument
constexpr size_t kBegin = 128;     // 512 bytes: where arguments of any device's kernels may begin

struct AlignedAlloc {
  void AllocData(DLTensor* tensor) {
    const size_t bytes = (ffi::GetDataSize(*tensor) + kAlignment - 1) / kAlignment * kAlignment;
    tensor->data = std::aligned_alloc(kAlignment, std::max(bytes, kAlignment));
    if (tensor->data == nullptr) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

bool Fits(const std::optional<ffi::Tensor>& storage, int64_t size) {
  return storage.has_value() && storage->numel() >= size;
}

ffi::Tensor Front(const ffi::Tensor& storage, int64_t size) {
  return storage.as_strided(ffi::Shape({size}), ffi::Shape({1}));
}

}  // namespace

int64_t StepArguments::RoomFor(size_t size) {
  int64_t room = kInt32s;
  while (room < static_cast<int64_t>(size)) room *= 2;
  return room;
}

std::vector<ffi::Tensor> StepArguments::Place(
    const std::vector<const std::vector<int32_t>*>& arguments) {
  storages_.resize(arguments.size());
  if (memory_ == nullptr) return OnHost(arguments);
  return memory_->has_addresses() ? InOnePiece(arguments) : EachAlone(arguments);
}

std::vector<ffi::Tensor> StepArguments::OnHost(
    const std::vector<const std::vector<int32_t>*>& arguments) {
  std::vector<ffi::Tensor> tensors;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::vector<int32_t>& values = *arguments[i];
    const auto size = static_cast<int64_t>(values.size());
    if (!Fits(storages_[i], size)) {
      storages_[i] = ffi::Tensor::FromNDAlloc(AlignedAlloc(), ffi::Shape({2 * size}), kInt32, kCpu);
    }
    std::copy(values.begin(), values.end(), static_cast<int32_t*>(storages_[i]->data_ptr()));
    tensors.push_back(Front(*storages_[i], size));
  }
  return tensors;
}

std::vector<ffi::Tensor> StepArguments::InOnePiece(
    const std::vector<const std::vector<int32_t>*>& arguments) {
  // The device may not have read what it was given last: a step without results waits for nobody.
  if (unread_since_ == memory_->num_waits()) memory_->Wait();
  packed_.clear();
  std::vector<int64_t> begins;
  for (const auto* values : arguments) {
    packed_.resize((packed_.size() + kBegin - 1) / kBegin * kBegin);
    const size_t begin = packed_.size();
    begins.push_back(static_cast<int64_t>(begin));
    packed_.insert(packed_.end(), values->begin(), values->end());
    packed_.resize(begin + RoomFor(values->size()));
  }
  const auto size = static_cast<int64_t>(packed_.size());
  if (!Fits(storages_[0], size)) {
    storages_[0] = memory_->Empty(ffi::Shape({2 * size}), kInt32);
    ++num_moves_;
  }
  memory_->Upload(packed_.data(), Front(*storages_[0], size));
  unread_since_ = memory_->num_waits();
  std::vector<ffi::Tensor> tensors;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto length = static_cast<int64_t>(arguments[i]->size());
    tensors.push_back(memory_->Part(*storages_[0], begins[i] * sizeof(int32_t), length));
  }
  return tensors;
}

std::vector<ffi::Tensor> StepArguments::EachAlone(
    const std::vector<const std::vector<int32_t>*>& arguments) {
  std::vector<ffi::Tensor> tensors;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto size = static_cast<int64_t>(arguments[i]->size());
    const int64_t room = RoomFor(arguments[i]->size());
    if (!Fits(storages_[i], room)) {
      storages_[i] = memory_->Empty(ffi::Shape({room}), kInt32);
      ++num_moves_;
    }
    tensors.push_back(Front(*storages_[i], size));
    memory_->Upload(arguments[i]->data(), tensors.back());
  }
  return tensors;
}

}  // namespace cupola
