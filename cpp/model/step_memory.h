// The working memory of a device's steps, which stays where it is, whoever else allocates.
//
// A recording writes to the addresses that it saw. TVM's pool, where a step's memory comes from,
// hands it to others, and gives it back to the device when something has no room. And it keeps
// memory for every size that it was ever asked for, of which lengths of contexts make many, each
// new one a call of the driver that waits for the device. So steps have memory of their own, which
// all of them share, since one runs after the other.
#ifndef CUPOLA_MODEL_STEP_MEMORY_H_
#define CUPOLA_MODEL_STEP_MEMORY_H_

#include <tvm/ffi/any.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/object.h>

#include <cstdint>
#include <vector>

namespace cupola {

class StepMemory {
 public:
  // What a library has to import, before it is loaded into a virtual machine, for scopes to matter.
  static tvm::ffi::Module Allocator();

  // As long as it lives, what the calling thread's virtual machines allocate on their device comes
  // from `memory`.
  class Scope {
   public:
    explicit Scope(StepMemory* memory);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };

  // Gives all of it back.
  void Release() { storages_.clear(); }

 private:
  // A storage of TVM's; who holds it besides this is using it.
  struct Storage {
    tvm::ffi::ObjectRef object;
    int64_t bytes;
  };

  static void Alloc(tvm::ffi::PackedArgs args, tvm::ffi::Any* result);
  tvm::ffi::ObjectRef Find(tvm::ffi::PackedArgs args);

  std::vector<Storage> storages_;
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_STEP_MEMORY_H_
