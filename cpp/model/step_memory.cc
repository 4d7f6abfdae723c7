#include "model/step_memory.h"

#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/dtype.h>

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

constexpr char kAllocStorage[] = "vm.builtin.alloc_storage";  // what virtual machines call
constexpr int64_t kDevice = 0;    // the first device of a virtual machine; the host comes behind it
constexpr int64_t kLeast = 4096;  // bytes

thread_local StepMemory* current = nullptr;

// Sizes are powers of two, so that what grows with a batch or a context does not need memory for
// each of its sizes.
int64_t RoomFor(int64_t bytes) {
  int64_t room = kLeast;
  while (room < bytes) room *= 2;
  return room;
}

class AllocatorModule final : public ffi::ModuleObj {
 public:
  explicit AllocatorModule(ffi::Function alloc) : alloc_(std::move(alloc)) {}
  const char* kind() const final { return "cupola.step_memory"; }
  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    if (name != kAllocStorage) return std::nullopt;
    return alloc_;
  }

 private:
  const ffi::Function alloc_;
};

}  // namespace

StepMemory::Scope::Scope(StepMemory* memory) { current = memory; }
StepMemory::Scope::~Scope() { current = nullptr; }

ffi::Module StepMemory::Allocator() {
  return ffi::Module(ffi::make_object<AllocatorModule>(ffi::Function::FromPacked(Alloc)));
}

// (virtual machine, shape, number of the device, type, scope) -> storage
void StepMemory::Alloc(ffi::PackedArgs args, ffi::Any* result) {
  if (current != nullptr && args[2].cast<int64_t>() == kDevice) {
    *result = current->Find(args);
  } else {
    static const ffi::Function alloc = ffi::Function::GetGlobalRequired(kAllocStorage);
    alloc.CallPacked(args, result);
  }
}

ffi::ObjectRef StepMemory::Find(ffi::PackedArgs args) {
  const auto type = args[3].cast<DLDataType>();
  const int64_t element = (type.bits * type.lanes + 7) / 8;
  const int64_t bytes = args[1].cast<ffi::Shape>().Product() * element;
  const Storage* best = nullptr;
  for (const Storage& storage : storages_) {
    const bool fits = storage.bytes >= bytes && storage.object.use_count() == 1;
    if (fits && (best == nullptr || storage.bytes < best->bytes)) best = &storage;
  }
  if (best != nullptr) return best->object;
  const int64_t room = RoomFor(bytes);
  static const ffi::Function alloc = ffi::Function::GetGlobalRequired(kAllocStorage);
  ffi::Any storage = alloc(args[0], ffi::Shape({room / element}), args[2], args[3], args[4]);
  storages_.push_back({storage.cast<ffi::ObjectRef>(), room});
  return storages_.back().object;
}

}  // namespace cupola
