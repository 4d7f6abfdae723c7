#include "device/device_memory.h"

#include <exception>

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

constexpr size_t kAlignment = 64;  // what compiled kernels expect of their arguments
constexpr DLDevice kCpu{kDLCPU, 0};
constexpr DLDataType kByte{kDLUInt, 8, 1};

struct Owned {
  DeviceApi* api;
  void AllocData(DLTensor* tensor) {
    tensor->data =
        api->AllocDataSpace(tensor->device, ffi::GetDataSize(*tensor), kAlignment, tensor->dtype);
  }
  // A device that has died refuses, and whoever lets go of a tensor cannot be told.
  void FreeData(DLTensor* tensor) {
    try {
      api->FreeDataSpace(tensor->device, tensor->data);
    } catch (const std::exception&) {
    }
  }
};

struct Borrowed {
  ffi::Tensor storage;
  int64_t byte_offset;
  void AllocData(DLTensor* tensor) {
    tensor->data = static_cast<char*>(storage.data_ptr()) + byte_offset;
  }
  void FreeData(DLTensor*) {}
};

DLTensor OnHost(const void* data) {
  DLTensor tensor{};
  tensor.data = const_cast<void*>(data);
  tensor.device = kCpu;
  return tensor;
}

}  // namespace

std::optional<DeviceMemory> DeviceMemory::Of(DLDevice device) {
  if (device.device_type == kDLCPU) return std::nullopt;
  return DeviceMemory(device);
}

ffi::Tensor DeviceMemory::Empty(const ffi::Shape& shape, DLDataType type) const {
  return ffi::Tensor::FromNDAlloc(Owned{api_}, shape, type, device_);
}

ffi::Tensor DeviceMemory::Part(const ffi::Tensor& storage, int64_t byte_offset,
                               int64_t size) const {
  return ffi::Tensor::FromNDAlloc(Borrowed{storage, byte_offset}, ffi::Shape({size}),
                                  storage.dtype(), device_);
}

void DeviceMemory::Upload(const void* from, const ffi::Tensor& to) const {
  const DLTensor& tensor = *to.GetDLTensorPtr();
  CopyBytes(OnHost(from), tensor, static_cast<int64_t>(ffi::GetDataSize(tensor)));
}

ffi::Array<ffi::Tensor> DeviceMemory::Copies(const ffi::Array<ffi::Tensor>& tensors) const {
  ffi::Array<ffi::Tensor> copies;
  for (const ffi::Tensor& tensor : tensors) {
    copies.push_back(Empty(tensor.shape(), tensor.dtype()));
    Upload(tensor.data_ptr(), copies.back());
  }
  Wait();
  return copies;
}

void DeviceMemory::Wait() const {
  api_->StreamSync(device_, api_->GetCurrentStream(device_));
  ++num_waits_;
}

void DeviceMemory::Download(const ffi::Tensor& from, void* to) const {
  const DLTensor& tensor = *from.GetDLTensorPtr();
  CopyBytes(tensor, OnHost(to), static_cast<int64_t>(ffi::GetDataSize(tensor)));
  Wait();
}

void DeviceMemory::Copy(const ffi::Tensor& tensor, int64_t from, int64_t to, int64_t bytes) const {
  DLTensor source = *tensor.GetDLTensorPtr();
  DLTensor target = source;
  source.byte_offset += static_cast<uint64_t>(from);
  target.byte_offset += static_cast<uint64_t>(to);
  CopyBytes(source, target, bytes);
}

void DeviceMemory::CopyBytes(DLTensor from, DLTensor to, int64_t bytes) const {
  if (bytes == 0) return;
  for (DLTensor* tensor : {&from, &to}) {
    tensor->ndim = 1;
    tensor->dtype = kByte;
    tensor->shape = &bytes;
    tensor->strides = nullptr;
  }
  api_->CopyDataFromTo(&from, &to, api_->GetCurrentStream(device_));
}

}  // namespace cupola
