// Addresses for the memory of a device that has buffers where TVM has pointers.
//
// An address is the number of an allocation and an offset in it, so that a tensor may begin within
// another one. For one thread at a time.
#ifndef CUPOLA_DEVICE_ADDRESS_TABLE_H_
#define CUPOLA_DEVICE_ADDRESS_TABLE_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "device/device_error.h"

namespace cupola {

// A buffer has bytes(), and is freed with its object.
template <typename Buffer>
class AddressTable {
 public:
  struct Place {
    Buffer* buffer;   // stays where it is until it is removed
    uint64_t serial;  // of the allocation; no two have the same
    uint64_t offset;
    uint64_t bytes;  // from there to the end of the buffer
  };

  void* Add(Buffer buffer) {
    allocated_bytes_ += buffer.bytes();
    if (free_numbers_.empty()) {
      free_numbers_.push_back(allocations_.size());
      allocations_.emplace_back();
    }
    const uint64_t number = free_numbers_.back();
    free_numbers_.pop_back();
    allocations_[number] =
        std::make_unique<Allocation>(Allocation{std::move(buffer), next_serial_++});
    return reinterpret_cast<void*>((number + 1) << kOffsetBits);
  }

  // Throws ffi::Error if nothing is there.
  void Remove(const void* address) {
    allocated_bytes_ -= At(address).buffer->bytes();
    const uint64_t number = NumberOf(address);
    allocations_[number] = nullptr;
    free_numbers_.push_back(number);
  }

  // Throws ffi::Error if nothing is there.
  Place At(const void* address) const {
    const uint64_t number = NumberOf(address);
    Allocation* allocation = number < allocations_.size() ? allocations_[number].get() : nullptr;
    const uint64_t offset = reinterpret_cast<uint64_t>(address) & kOffsetMask;
    if (allocation == nullptr || offset > allocation->buffer.bytes()) {
      Raise("a kernel or a copy was given an address that is not on its device");
    }
    return {&allocation->buffer, allocation->serial, offset, allocation->buffer.bytes() - offset};
  }

  uint64_t allocated_bytes() const { return allocated_bytes_; }

 private:
  static constexpr int kOffsetBits = 40;
  static constexpr uint64_t kOffsetMask = (uint64_t{1} << kOffsetBits) - 1;
  static uint64_t NumberOf(const void* address) {
    return (reinterpret_cast<uint64_t>(address) >> kOffsetBits) - 1;
  }

  struct Allocation {
    Buffer buffer;
    uint64_t serial;
  };

  std::vector<std::unique_ptr<Allocation>> allocations_;  // by number; null: free
  std::vector<uint64_t> free_numbers_;
  uint64_t next_serial_ = 0;
  uint64_t allocated_bytes_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_DEVICE_ADDRESS_TABLE_H_
