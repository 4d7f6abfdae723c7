#include "decoder.h"

#include <algorithm>
#include <set>

#include "emitter.h"
#include "operations.h"

namespace ptx {
namespace {

using syntax::Function;
using syntax::Operand;
using syntax::Statement;
using Parts = std::vector<std::string>;

// What says how memory caches and orders an access, which makes no difference here.
bool IsQualifier(const std::string& part) {
  static const std::set<std::string> kQualifiers = {
      "nc",  "volatile", "relaxed", "acquire", "release", "acq_rel", "weak",
      "gpu", "cta",      "sys",     "cluster", "ca",      "cg",      "cs",
      "lu",  "cv",       "wb",      "wt",      "async"};
  return kQualifiers.count(part) || part.compare(0, 4, "L1::") == 0 ||
         part.compare(0, 4, "L2::") == 0;
}

std::string Join(const Parts& parts) {
  std::string name;
  for (const std::string& part : parts) name += (name.empty() ? "" : ".") + part;
  return name;
}

// An access to memory, of the parts of an opcode behind the first one.
struct MemoryAccess {
  std::string space;  // empty: generic
  int count = 1;
  std::string type;
  Parts others;

  explicit MemoryAccess(const Parts& parts) {
    for (size_t i = 1; i < parts.size(); ++i) {
      const std::string& part = parts[i];
      if (part == "global" || part == "local" || part == "param" || part == "const") {
        space = part;
      } else if (part == "shared" || part == "shared::cta") {
        space = "shared";
      } else if (part == "param::entry" || part == "param::func") {
        space = "param";
      } else if (part == "v2" || part == "v4" || part == "v8") {
        count = part[1] - '0';
      } else if (i + 1 == parts.size()) {
        type = part;
      } else if (!IsQualifier(part)) {
        others.push_back(part);
      }
    }
  }
  Space Where() const {
    if (space == "shared") return Space::kShared;
    if (space == "local" || space == "param")
      return Space::kLocal;  // a kernel's own parameters are no memory
    return space.empty() ? Space::kGeneric : Space::kGlobal;
  }
};

class Decoder : private Emitter {
 public:
  Decoder(const syntax::Module& module, const std::map<std::string, Module::Variable>& variables)
      : module_(module) {
    for (const auto& [name, variable] : variables) {
      globals_[name] = {Symbol::Kind::kMemory, Space::kGlobal,
                        reinterpret_cast<uint64_t>(variable.data)};
    }
  }

  Kernel Run(const Function& entry) {
    kernel_.name = entry.name;
    for (const syntax::Variable& variable : module_.variables) ReserveShared(variable, &globals_);
    Frame frame{entry, "", {}, {}, {}, {}};
    ReserveDynamic(entry);
    size_t offset = 0;
    for (const syntax::Variable& parameter : entry.parameters) {
      const size_t bytes = syntax::BytesOf(parameter.type) * parameter.count;
      offset = (offset + parameter.align - 1) / parameter.align * parameter.align;
      frame.symbols[parameter.name] = {Symbol::Kind::kParameter, Space::kLocal, offset};
      kernel_.parameters.push_back({offset, bytes});
      offset += bytes;
    }
    Write(&frame);
    for (const uint32_t at : frame.returns) kernel_.code[at].flow = Flow::kExit;
    statement_ = nullptr;
    Emit(nullptr, {}).flow = Flow::kExit;
    size_t at = 0;
    for (size_t i = 0; i < kernel_.code.size(); ++i) {
      kernel_.code[i].operands = kernel_.operands.data() + at;
      at += kernel_.code[i].count_of_operands;
    }
    return std::move(kernel_);
  }

 private:
  void ReserveShared(const syntax::Variable& variable, std::map<std::string, Symbol>* symbols) {
    if (variable.space != "shared" || variable.is_extern) return;
    const size_t bytes = syntax::BytesOf(variable.type) * variable.count;
    (*symbols)[variable.name] = {Symbol::Kind::kMemory, Space::kShared,
                                 layout_.Reserve(Space::kShared, bytes, variable.align)};
  }

  // Memory whose size the launch decides lies behind all other memory of the block.
  void ReserveDynamic(const Function& entry) {
    for (const auto& [name, function] : module_.functions) {
      if (function.entry && name != entry.name) continue;
      for (const syntax::Variable& variable : function.variables)
        ReserveShared(variable, &statics_[name]);
    }
    size_t align = 16;
    for (const syntax::Variable& variable : module_.variables)
      align = std::max(align, variable.is_extern ? variable.align : 1);
    const uint64_t address = layout_.Reserve(Space::kShared, 0, align);
    for (const syntax::Variable& variable : module_.variables) {
      if (variable.space == "shared" && variable.is_extern) {
        globals_[variable.name] = {Symbol::Kind::kMemory, Space::kShared, address};
      }
    }
  }

  void Write(Frame* frame) {
    const Function& function = frame->function;
    for (const auto& [name, symbol] : statics_[function.name]) frame->symbols.emplace(name, symbol);
    for (const syntax::Variable& variable : function.variables) {
      if (variable.space == "shared") continue;
      const size_t bytes = syntax::BytesOf(variable.type) * variable.count;
      frame->symbols[variable.name] = {
          Symbol::Kind::kMemory, Space::kLocal,
          layout_.Reserve(Space::kLocal, bytes, std::max<size_t>(variable.align, 8))};
    }
    for (size_t i = 0; i < function.statements.size(); ++i) {
      frame->begins[i] = Here();
      frame_ = frame;
      statement_ = &function.statements[i];
      try {
        WriteStatement();
      } catch (const std::runtime_error& error) {
        throw std::runtime_error("line " + std::to_string(statement_->line) + ": `" +
                                 statement_->text + "`: " + error.what());
      }
    }
    frame->begins[function.statements.size()] = Here();
    for (const auto& [at, label] : frame->jumps) kernel_.code[at].target = LabelOf(*frame, label);
  }

  uint32_t Here() const { return static_cast<uint32_t>(kernel_.code.size()); }

  static uint32_t LabelOf(const Frame& frame, const std::string& label) {
    const auto found = frame.function.labels.find(label);
    if (found == frame.function.labels.end())
      throw std::runtime_error("there is no label " + label);
    return frame.begins.at(found->second);
  }

  void WriteStatement();
  bool WriteControl();
  void WriteCall();
  void WriteLoad();
  void WriteParameterLoad(const MemoryAccess& access, const Symbol& symbol);
  void WriteStore();
  void WriteMove();
  void WriteGenericAddress();
  void WriteAtomic();
  void WriteCopy();
  void WriteMatrixLoad();
  void WriteOperation(const std::string& name);

  const syntax::Module& module_;
  std::map<std::string, std::map<std::string, Symbol>> statics_;
  int calls_ = 0, depth_ = 0;
};

void Decoder::WriteStatement() {
  const Parts& parts = statement_->opcode;
  const std::string &first = parts[0], second = parts.size() > 1 ? parts[1] : "";
  if (WriteControl()) return;
  if (first == "ld" || first == "ldu") return WriteLoad();
  if (first == "st") return WriteStore();
  if (first == "mov" && parts.back() != "pred") return WriteMove();
  if (first == "cvta") return WriteGenericAddress();
  if (first == "atom" || first == "red") return WriteAtomic();
  if (first == "cp" && (parts[2] == "ca" || parts[2] == "cg")) return WriteCopy();
  if (first == "ldmatrix") return WriteMatrixLoad();
  if (first == "fence" || first == "membar" || first == "prefetch" || first == "prefetchu" ||
      first == "nanosleep")
    return;
  WriteOperation(Join(parts));
}

bool Decoder::WriteControl() {
  const Parts& parts = statement_->opcode;
  const auto& operands = statement_->operands;
  const std::string& first = parts[0];
  if (first == "bra") {
    Expect(1);
    frame_->jumps.emplace_back(Here(), operands[0].name);
    Emit(nullptr, {}).flow = Flow::kBranch;
  } else if (first == "brx") {
    Expect(2);
    const auto table = frame_->function.tables.find(operands[1].name);
    if (table == frame_->function.tables.end())
      throw std::runtime_error("there is no table " + operands[1].name);
    // An own branch for each label, whose places are known at the end.
    const uint32_t index = Read(operands[0], 4);
    Instruction& jump = Emit(nullptr, {index});
    jump.flow = Flow::kTable, jump.target = static_cast<uint32_t>(kernel_.tables.size());
    kernel_.tables.emplace_back();
    const std::string none;
    for (const std::string& label : table->second) {
      kernel_.tables.back().push_back(Here());
      frame_->jumps.emplace_back(Here(), label);
      Instruction& branch = Emit(nullptr, {});
      branch.flow = Flow::kBranch, branch.guard = kNone;
    }
  } else if (first == "ret" || first == "exit") {
    if (first == "ret") frame_->returns.push_back(Here());
    Emit(nullptr, {}).flow = first == "ret" ? Flow::kBranch : Flow::kExit;
  } else if (first == "trap") {
    Emit([](Warp&, const Instruction&, uint32_t) { throw Fault("the kernel ends by itself"); }, {});
  } else if ((first == "bar" || first == "barrier") && parts.back() != "red" &&
             parts[1] != "warp") {
    if (Join(parts) != "bar.sync" && Join(parts) != "barrier.sync" &&
        Join(parts) != "barrier.sync.aligned" && Join(parts) != "bar.cta.sync" &&
        Join(parts) != "barrier.cta.sync.aligned") {
      throw std::runtime_error("this instruction is not known");
    }
    std::vector<uint32_t> places;
    for (const Operand& operand : operands) places.push_back(Read(operand, 4));
    Emit(nullptr, places).flow = Flow::kBarrier;
  } else if (Join(parts) == "bar.warp.sync") {
    Expect(1);
    const uint32_t members = Read(operands[0], 4);
    Instruction& barrier = Emit(nullptr, {});
    barrier.flow = Flow::kTogether, barrier.members = members;
  } else if (first == "call") {
    WriteCall();
  } else {
    return false;
  }
  return true;
}

// The function is written here, its parameters are the caller's variables.
void Decoder::WriteCall() {
  const auto& operands = statement_->operands;
  if (!statement_->guard.empty()) throw std::runtime_error("a call with a guard");
  const auto named = std::find_if(operands.begin(), operands.end(), [&](const Operand& operand) {
    return module_.functions.count(operand.name);
  });
  if (named == operands.end()) throw std::runtime_error("the function is not in this module");
  if (++depth_ > 16) throw std::runtime_error("functions call each other too deep");
  const Function& function = module_.functions.at(named->name);
  Frame frame{function, std::to_string(++calls_) + "/", {}, {}, {}, {}};
  std::vector<const syntax::Variable*> formal;
  for (const auto& result : function.results) formal.push_back(&result);
  for (const auto& parameter : function.parameters) formal.push_back(&parameter);
  std::vector<const Operand*> actual;
  for (auto operand = operands.begin(); operand != operands.end(); ++operand) {
    if (operand != named) actual.push_back(&*operand);
  }
  if (formal.size() != actual.size()) throw std::runtime_error("the function has other parameters");
  for (size_t i = 0; i < formal.size(); ++i) {
    const Symbol* symbol = FindSymbol(actual[i]->name);
    if (symbol == nullptr || symbol->kind != Symbol::Kind::kMemory)
      throw std::runtime_error("there is no " + actual[i]->name);
    frame.symbols[formal[i]->name] = *symbol;
  }
  Frame* caller = frame_;
  const Statement* call = statement_;
  Write(&frame);
  for (const uint32_t at : frame.returns) kernel_.code[at].target = Here();
  frame_ = caller, statement_ = call;
  --depth_;
}

void Decoder::WriteLoad() {
  const MemoryAccess access(statement_->opcode);
  const auto& operands = statement_->operands;
  if (!access.others.empty()) throw std::runtime_error("." + access.others[0] + " is not known");
  Expect(static_cast<size_t>(access.count) + 1);
  const Symbol* symbol = FindSymbol(operands.back().name);
  if (symbol != nullptr && symbol->kind == Symbol::Kind::kParameter)
    return WriteParameterLoad(access, *symbol);
  const size_t bytes = syntax::BytesOf(access.type);
  const Address address = AddressOf(operands.back());
  std::vector<Result> results;
  std::vector<uint32_t> places;
  for (int i = 0; i < access.count; ++i) {
    results.push_back(ToWrite(operands[i], bytes, true));
    places.push_back(results.back().place);
  }
  places.push_back(address.place);
  Instruction& load = Emit(LoadHandler(access.Where(), bytes, address.wide), places);
  load.offset = address.offset, load.count = static_cast<uint16_t>(access.count);
  for (const Result& result : results) Widen(result, access.type[0] == 's');
}

void Decoder::WriteParameterLoad(const MemoryAccess& access, const Symbol& symbol) {
  const size_t bytes = syntax::BytesOf(access.type);
  for (int i = 0; i < access.count; ++i) {
    const Operand& operand = statement_->operands[i];
    const auto to = TryFind(operand.name);
    if (!to || to->bytes < bytes)
      throw std::runtime_error("there is no register " + operand.name + " for it");
    const size_t offset =
        symbol.address + static_cast<size_t>(statement_->operands.back().offset) + bytes * i;
    const Register from = layout_.Parameter(offset, bytes);
    Emit(ResizeHandler(to->bytes, bytes, access.type[0] == 's'), {to->place, from.place});
  }
}

void Decoder::WriteStore() {
  const MemoryAccess access(statement_->opcode);
  const auto& operands = statement_->operands;
  if (!access.others.empty()) throw std::runtime_error("." + access.others[0] + " is not known");
  Expect(static_cast<size_t>(access.count) + 1);
  const size_t bytes = syntax::BytesOf(access.type);
  const Address address = AddressOf(operands[0]);
  std::vector<uint32_t> places{address.place};
  for (int i = 0; i < access.count; ++i) places.push_back(Read(operands[i + 1], bytes, true));
  Instruction& store = Emit(StoreHandler(access.Where(), bytes, address.wide), places);
  store.offset = address.offset, store.count = static_cast<uint16_t>(access.count);
}

void Decoder::WriteMove() {
  const auto& operands = statement_->operands;
  const auto& groups = statement_->groups;
  const size_t whole = syntax::BytesOf(statement_->opcode.back());
  if (groups.size() != 2) throw std::runtime_error("two operands are expected");
  if (groups[0] == 1 && groups[1] == 1) return WriteOperation(Join(statement_->opcode));
  const bool packs = groups[0] == 1;
  const auto count = static_cast<size_t>(packs ? groups[1] : groups[0]);
  const size_t element = whole / count;
  std::vector<uint32_t> places;
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool written = packs ? i == 0 : i < count, is_whole = packs ? i == 0 : i == count;
    const size_t bytes = is_whole ? whole : element;
    places.push_back(written ? ToWrite(operands[i], bytes).place : Read(operands[i], bytes));
  }
  const Handler run = packs ? PackHandler(element, whole) : UnpackHandler(element, whole);
  if (run == nullptr) throw std::runtime_error("a vector of such a size");
  Emit(run, places);
}

void Decoder::WriteGenericAddress() {
  const Parts& parts = statement_->opcode;
  const bool from_generic = parts[1] == "to";
  const std::string& space = parts[from_generic ? 2 : 1];
  uint64_t window = 0;
  if (space.compare(0, 6, "shared") == 0) window = kSharedWindow;
  if (space == "local") window = kLocalWindow;
  if (space == "param")
    throw std::runtime_error("generic addresses of parameters are not supported");
  Expect(2);
  const size_t bytes = syntax::BytesOf(parts.back());
  if (bytes != 8) throw std::runtime_error("generic addresses have 64 bits");
  const uint32_t from = Read(statement_->operands[1], 8),
                 to = ToWrite(statement_->operands[0], 8).place;
  Emit(Operations().at(from_generic ? "sub.u64" : "add.u64").run,
       {to, from, layout_.Constant(window, 8).place});
}

void Decoder::WriteAtomic() {
  const MemoryAccess access(statement_->opcode);
  const bool returns = statement_->opcode[0] == "atom";
  const std::string name = "atom." + Join(access.others) + "." + access.type;
  const auto found = Operations().find(name);
  if (found == Operations().end() || access.count != 1)
    throw std::runtime_error("this instruction is not known");
  const Operation& operation = found->second;
  const auto& operands = statement_->operands;
  Expect(operation.bytes.size() - !returns);
  const size_t value = operation.bytes[0];
  std::vector<uint32_t> places;
  places.push_back(returns ? ToWrite(operands[0], value).place : layout_.Temporary(value).place);
  int64_t offset = 0;
  places.push_back(WideAddressOf(operands[returns], &offset));
  for (size_t i = returns + 1; i < operands.size(); ++i) places.push_back(Read(operands[i], value));
  Instruction& instruction = Emit(operation.run, places);
  instruction.offset = offset, instruction.mode = static_cast<uint16_t>(access.Where());
}

// cp.async.cg.shared.global [to], [from], bytes{, bytes that are read};
void Decoder::WriteCopy() {
  for (size_t i = 3; i < statement_->opcode.size(); ++i) {
    const std::string& part = statement_->opcode[i];
    if (part != "shared" && part != "shared::cta" && part != "global" && !IsQualifier(part)) {
      throw std::runtime_error("." + part + " is not known");
    }
  }
  const auto& operands = statement_->operands;
  if (operands.size() != 3 && operands.size() != 4)
    throw std::runtime_error("three or four operands are expected");
  const Address to = AddressOf(operands[0]);
  int64_t offset = 0;
  uint32_t from = WideAddressOf(operands[1], &offset);
  if (offset != 0) {
    const Register sum = layout_.Temporary(8);
    Emit(Operations().at("add.s64").run,
         {sum.place, from, layout_.Constant(static_cast<uint64_t>(offset), 8).place});
    from = sum.place;
  }
  std::vector<uint32_t> places{to.place, from};
  for (size_t i = 2; i < operands.size(); ++i) places.push_back(Read(operands[i], 4));
  Emit(CopyHandler(to.wide), places).offset = to.offset;
}

void Decoder::WriteMatrixLoad() {
  const Parts& parts = statement_->opcode;
  int count = 0;
  bool transposed = false;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    if (part == "x1" || part == "x2" || part == "x4") {
      count = part[1] - '0';
    } else if (part == "trans") {
      transposed = true;
    } else if (part != "sync" && part != "aligned" && part != "m8n8" && part != "shared" &&
               part != "shared::cta" && part != "b16") {
      throw std::runtime_error("." + part + " is not known");
    }
  }
  const auto& operands = statement_->operands;
  Expect(static_cast<size_t>(count) + 1);
  std::vector<uint32_t> places;
  for (int i = 0; i < count; ++i) places.push_back(ToWrite(operands[i], 4).place);
  const Address address = AddressOf(operands.back());
  places.push_back(address.place);
  Instruction& load = Emit(MatrixLoadHandler(address.wide), places);
  load.offset = address.offset, load.count = static_cast<uint16_t>(count), load.mode = transposed;
  load.flow = Flow::kTogether;
}

void Decoder::WriteOperation(const std::string& name) {
  const auto found = Operations().find(name);
  if (found == Operations().end()) throw std::runtime_error("this instruction is not known");
  const Operation& operation = found->second;
  std::vector<Operand> operands = statement_->operands;
  if (name.compare(0, 5, "shfl.") == 0 && operands.size() == 5) {
    operands.insert(operands.begin() + 1, Operand{syntax::Kind::kName, "_", 0, 0, false});
  }
  if (operands.size() != operation.bytes.size()) {
    throw std::runtime_error(std::to_string(operation.bytes.size()) + " operands are expected");
  }
  const bool converts = name.compare(0, 4, "cvt.") == 0;
  const bool reads_all = statement_->opcode[0] == "cp";
  size_t written = reads_all ? 0 : 1;
  if (name.compare(0, 5, "shfl.") == 0) written = 2;
  if (name.compare(0, 4, "mma.") == 0) written = 4;
  std::vector<uint32_t> places;
  std::vector<Result> results;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (i < written) results.push_back(ToWrite(operands[i], operation.bytes[i], converts));
    places.push_back(i < written ? results.back().place
                                 : Read(operands[i], operation.bytes[i], converts));
  }
  Instruction& instruction = Emit(operation.run, places);
  instruction.flow = operation.flow, instruction.mode = operation.mode;
  if (operation.members >= 0) instruction.members = places[static_cast<size_t>(operation.members)];
  const Parts& parts = statement_->opcode;
  for (const Result& result : results) Widen(result, converts && parts[parts.size() - 2][0] == 's');
}

}  // namespace

Kernel Decode(const syntax::Module& module, const Function& entry,
              const std::map<std::string, Module::Variable>& variables) {
  return Decoder(module, variables).Run(entry);
}

}  // namespace ptx
