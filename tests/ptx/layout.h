// Where things lie: registers, literals and special registers in a warp's block of bytes, variables
// in their spaces.
#ifndef CUPOLA_TESTS_PTX_LAYOUT_H_
#define CUPOLA_TESTS_PTX_LAYOUT_H_

#include <map>
#include <optional>
#include <string>

#include "memory.h"
#include "program.h"
#include "syntax.h"

namespace ptx {

// A place in the block of registers, and bytes of a lane's value; 0: a predicate.
struct Register {
  uint32_t place;
  size_t bytes;
};

// A variable: its space, and its address there.
struct Symbol {
  enum class Kind { kMemory, kParameter } kind = Kind::kMemory;
  Space space = Space::kGlobal;
  uint64_t address = 0;  // of a kernel's parameter, its offset
};

class Layout {
 public:
  explicit Layout(Kernel* kernel) : kernel_(*kernel) { kernel_.specials.fill(kNone); }

  Register Temporary(size_t bytes);
  // Of a function's registers; names of inlined functions have a prefix.
  std::optional<Register> Find(const syntax::Function& function, const std::string& prefix,
                               const std::string& name);
  std::optional<Register> FindSpecial(const std::string& name);
  Register Constant(uint64_t bits, size_t bytes);
  Register Parameter(size_t offset, size_t bytes);
  // Memory of a block or lane for a variable.
  uint64_t Reserve(Space space, size_t bytes, size_t align);

 private:
  Kernel& kernel_;
  std::map<std::string, Register> registers_;
  std::map<std::pair<uint64_t, size_t>, Register> constants_, parameters_;
};

// The variables of a module, with what they hold at first.
std::map<std::string, Module::Variable> MakeVariables(const syntax::Module& module);

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_LAYOUT_H_
