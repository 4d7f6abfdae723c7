#include "emitter.h"

#include <cstring>
#include <stdexcept>

#include "operations.h"

namespace ptx {

using syntax::Operand;

namespace {

uint64_t BitsOf(const Operand& operand, size_t bytes) {
  if (operand.kind == syntax::Kind::kDouble && bytes == 4) {
    double wide;
    std::memcpy(&wide, &operand.bits, 8);
    const auto narrow = static_cast<float>(wide);
    uint32_t bits;
    std::memcpy(&bits, &narrow, 4);
    return bits;
  }
  return operand.bits;
}

}  // namespace

Instruction& Emitter::Emit(Handler run, const std::vector<uint32_t>& operands) {
  Instruction instruction;
  instruction.run = run;
  instruction.count_of_operands = static_cast<uint16_t>(operands.size());
  instruction.count = instruction.count_of_operands;
  instruction.line = statement_ ? statement_->line : 0;
  if (statement_ && !statement_->guard.empty()) {
    instruction.guard = Find(statement_->guard, 0).place;
    instruction.guard_negated = statement_->guard_negated;
  }
  kernel_.operands.insert(kernel_.operands.end(), operands.begin(), operands.end());
  kernel_.texts.push_back(statement_ ? statement_->text : "");
  kernel_.code.push_back(instruction);
  return kernel_.code.back();
}

Register Emitter::Find(const std::string& name, size_t bytes) {
  const auto found = TryFind(name);
  if (!found) throw std::runtime_error("there is no register " + name);
  if (found->bytes != bytes) {
    throw std::runtime_error(name + " has " + std::to_string(found->bytes) + " bytes, and not " +
                             std::to_string(bytes));
  }
  return *found;
}

std::optional<Register> Emitter::TryFind(const std::string& name) {
  if (const auto special = layout_.FindSpecial(name)) return special;
  return layout_.Find(frame_->function, frame_->prefix, name);
}

const Symbol* Emitter::FindSymbol(const std::string& name) const {
  const auto own = frame_->symbols.find(name);
  if (own != frame_->symbols.end()) return &own->second;
  const auto global = globals_.find(name);
  return global == globals_.end() ? nullptr : &global->second;
}

std::optional<Register> Emitter::TryConstant(const Operand& operand, size_t bytes) {
  if (operand.kind == syntax::Kind::kAddress)
    throw std::runtime_error("an address is not expected");
  if (operand.kind != syntax::Kind::kName) return layout_.Constant(BitsOf(operand, bytes), bytes);
  if (operand.name == "WARP_SZ") return layout_.Constant(kLanes, bytes);
  const Symbol* symbol = FindSymbol(operand.name);
  if (symbol == nullptr) return std::nullopt;
  if (symbol->kind == Symbol::Kind::kParameter)
    throw std::runtime_error("the address of a parameter is taken");
  return layout_.Constant(symbol->address, bytes);
}

uint32_t Emitter::Read(const Operand& operand, size_t bytes, bool narrows) {
  if (const auto constant = TryConstant(operand, bytes)) return constant->place;
  if (narrows) {
    const auto found = TryFind(operand.name);
    if (found && found->bytes > bytes) return Resized(*found, bytes, false).place;
  }
  const Register found = Find(operand.name, bytes);
  if (!operand.negated) return found.place;
  const Register inverse = layout_.Temporary(0);
  Emit(Operations().at("not.pred").run, {inverse.place, found.place});
  return inverse.place;
}

Register Emitter::Resized(Register from, size_t bytes, bool is_signed) {
  const Register to = layout_.Temporary(bytes);
  Emit(ResizeHandler(bytes, from.bytes, is_signed), {to.place, from.place});
  return to;
}

Emitter::Result Emitter::ToWrite(const Operand& operand, size_t bytes, bool widens) {
  if (operand.name == "_") return {layout_.Temporary(bytes).place, std::nullopt, bytes};
  const auto found = TryFind(operand.name);
  if (widens && found && found->bytes > bytes)
    return {layout_.Temporary(bytes).place, found, bytes};
  return {Find(operand.name, bytes).place, std::nullopt, bytes};
}

void Emitter::Widen(const Result& result, bool is_signed) {
  if (result.wide)
    Emit(ResizeHandler(result.wide->bytes, result.bytes, is_signed),
         {result.wide->place, result.place});
}

Emitter::Address Emitter::AddressOf(const Operand& operand) {
  if (operand.kind != syntax::Kind::kAddress) throw std::runtime_error("an address is expected");
  if (operand.name.empty()) return {layout_.Constant(0, 8).place, operand.offset, true};
  if (const Symbol* symbol = FindSymbol(operand.name)) {
    return {layout_.Constant(symbol->address, 8).place, operand.offset, true};
  }
  const auto found = TryFind(operand.name);
  if (!found || (found->bytes != 4 && found->bytes != 8))
    throw std::runtime_error("there is no " + operand.name);
  return {found->place, operand.offset, found->bytes == 8};
}

uint32_t Emitter::WideAddressOf(const Operand& operand, int64_t* offset) {
  const Address address = AddressOf(operand);
  *offset = address.offset;
  return address.wide ? address.place : Resized({address.place, 4}, 8, false).place;
}

void Emitter::Expect(size_t count) const {
  if (statement_->operands.size() != count)
    throw std::runtime_error(std::to_string(count) + " operands are expected");
}

}  // namespace ptx
