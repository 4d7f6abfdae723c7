// A kernel that is being written: its instructions, and the places of what they read and write.
#ifndef CUPOLA_TESTS_PTX_EMITTER_H_
#define CUPOLA_TESTS_PTX_EMITTER_H_

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "layout.h"
#include "program.h"
#include "syntax.h"

namespace ptx {

// A function that is being written into the kernel: the entry, or one that is called.
struct Frame {
  const syntax::Function& function;
  std::string prefix;
  std::map<std::string, Symbol> symbols;
  std::vector<std::pair<uint32_t, std::string>> jumps;  // instructions that want a label's place
  std::vector<uint32_t> returns;
  std::map<size_t, uint32_t> begins;  // statement -> instruction
};

class Emitter {
 protected:
  // A register that is written. One that is wider gets its value from a temporary one, by `Widen`.
  struct Result {
    uint32_t place;
    std::optional<Register> wide;
    size_t bytes;
  };
  struct Address {
    uint32_t place;
    int64_t offset;
    bool wide;
  };

  Emitter() : layout_(&kernel_) {}

  // Appends an instruction with the guard of the statement.
  Instruction& Emit(Handler run, const std::vector<uint32_t>& operands);
  // Throws unless the statement has so many operands.
  void Expect(size_t count) const;
  Register Find(const std::string& name, size_t bytes);
  std::optional<Register> TryFind(const std::string& name);
  const Symbol* FindSymbol(const std::string& name) const;
  // What a literal or a symbol stands for; none: it is a register.
  std::optional<Register> TryConstant(const syntax::Operand& operand, size_t bytes);
  // A value that is read; registers that are wider are narrowed if that is allowed.
  uint32_t Read(const syntax::Operand& operand, size_t bytes, bool narrows = false);
  Register Resized(Register from, size_t bytes, bool is_signed);
  Result ToWrite(const syntax::Operand& operand, size_t bytes, bool widens = false);
  void Widen(const Result& result, bool is_signed);
  Address AddressOf(const syntax::Operand& operand);
  // The same in 64 bits.
  uint32_t WideAddressOf(const syntax::Operand& operand, int64_t* offset);

  Kernel kernel_;
  Layout layout_;
  std::map<std::string, Symbol> globals_;
  Frame* frame_ = nullptr;
  const syntax::Statement* statement_ = nullptr;
};

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_EMITTER_H_
