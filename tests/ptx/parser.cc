// Tokens to modules. Registers that are declared within braces are renamed, so that names are
// unique in a function.
#include <cstdlib>
#include <optional>

#include "syntax.h"

namespace ptx::syntax {
namespace {

std::vector<std::string> Split(std::string_view word) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= word.size()) {
    const size_t end = std::min(word.find('.', begin), word.size());
    if (end > begin) parts.emplace_back(word.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool IsSpace(std::string_view word) {
  return word == ".shared" || word == ".local" || word == ".param" || word == ".global" ||
         word == ".const";
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text), tokens_(Tokens(text)) {}

  Module Run() {
    while (!Done()) Top();
    return std::move(module_);
  }

 private:
  using Scope = std::map<std::string, std::string>;  // as written -> as kept

  bool Done() const { return at_ == tokens_.size(); }
  std::string_view Peek(size_t ahead = 0) const {
    return at_ + ahead < tokens_.size() ? tokens_[at_ + ahead].text : std::string_view();
  }
  int Line() const { return tokens_.empty() ? 1 : tokens_[std::min(at_, tokens_.size() - 1)].line; }
  std::string_view Next() {
    if (Done()) Refuse(Line(), "the text ends too early");
    return tokens_[at_++].text;
  }
  bool Accept(std::string_view word) {
    if (Peek() != word) return false;
    ++at_;
    return true;
  }
  void Expect(std::string_view word) {
    if (!Accept(word))
      Refuse(Line(), "`" + std::string(word) + "` is expected, not `" + std::string(Peek()) + "`");
  }
  void SkipPast(std::string_view word) {
    while (Next() != word) {
    }
  }
  // A directive without a semicolon, such as .version 9.0
  void SkipLine() {
    for (const int line = Line(); !Done() && Line() == line;) ++at_;
  }

  void Top() {
    bool is_extern = false;
    while (Accept(".visible") || Peek() == ".extern" || Accept(".weak") || Accept(".common")) {
      is_extern |= Accept(".extern");
    }
    if (Peek() == ".entry" || Peek() == ".func") {
      ReadFunction(is_extern);
    } else if (IsSpace(Peek())) {
      for (Variable& variable : ReadVariables(is_extern))
        module_.variables.push_back(std::move(variable));
    } else {
      SkipLine();
    }
  }

  void ReadFunction(bool is_extern) {
    Function function;
    function.entry = Next() == ".entry";
    if (Peek() == "(") function.results = ReadParameters();
    function.name = Next();
    if (Peek() == "(") function.parameters = ReadParameters();
    while (Peek() != "{" && Peek() != ";") Next();  // performance directives
    if (Accept(";")) return;                        // its body comes later, or is missing
    if (is_extern) Refuse(Line(), "function " + function.name + " is extern");
    function_ = &function;
    ReadBody();
    module_.functions[function.name] = std::move(function);
  }

  std::vector<Variable> ReadParameters() {
    std::vector<Variable> parameters;
    Expect("(");
    while (!Accept(")")) {
      if (Peek() == ".reg") Refuse(Line(), "parameters in registers are not supported");
      parameters.push_back(ReadVariable(false));
      Accept(",");
    }
    return parameters;
  }

  std::vector<Variable> ReadVariables(bool is_extern) {
    std::vector<Variable> variables{ReadVariable(is_extern)};
    Expect(";");
    return variables;
  }

  // .shared .align 64 .b8 name[4][8] = {1, 2}; a pointer's attributes (.ptr .global .align) are
  // skipped.
  Variable ReadVariable(bool is_extern) {
    Variable variable;
    variable.is_extern = is_extern;
    variable.space = Next().substr(1);
    while (Peek().substr(0, 1) == ".") {
      const std::string_view word = Next();
      if (word == ".align") {
        variable.align = Number();
      } else if (word == ".ptr") {
        while (IsSpace(Peek())) Next();
      } else {
        variable.type = word.substr(1);
      }
    }
    variable.name = Next();
    variable.align = std::max(variable.align, BytesOf(variable.type));
    while (Accept("[")) {
      variable.count *= Peek() == "]" ? 0 : Number();
      Expect("]");
    }
    if (Accept("=")) ReadInitial(&variable);
    return variable;
  }

  void ReadInitial(Variable* variable) {
    int depth = 0;
    do {
      if (Accept("{")) {
        ++depth;
      } else if (Accept("}")) {
        --depth;
      } else if (!Accept(",")) {
        variable->initial.push_back(ReadOperand());
      }
    } while (depth > 0);
  }

  size_t Number() { return static_cast<size_t>(Literal(Next()).bits); }

  void ReadBody() {
    Expect("{");
    scopes_.emplace_back();
    while (!Accept("}")) {
      const std::string_view word = Peek();
      if (word == "{") {
        ReadBody();
      } else if (word == ".reg") {
        ReadRegisters();
      } else if (IsSpace(word)) {
        for (Variable& variable : ReadVariables(false))
          function_->variables.push_back(std::move(variable));
      } else if (word == ".loc" || word == ".file") {
        SkipLine();
      } else if (word[0] == '.') {
        SkipPast(";");
      } else if (Peek(1) == ":") {
        ReadLabel();
      } else {
        ReadStatement();
      }
    }
    scopes_.pop_back();
  }

  void ReadLabel() {
    const std::string label(Next());
    Expect(":");
    if (Accept(".branchtargets")) {
      do {
        function_->tables[label].emplace_back(Next());
      } while (Accept(","));
      Expect(";");
    } else {
      function_->labels[label] = function_->statements.size();
    }
  }

  // .reg .b32 %r<20>, a; ranges are kept under their prefix.
  void ReadRegisters() {
    Expect(".reg");
    const std::string type(Next().substr(1));
    do {
      const std::string written(Next());
      std::string name = written;
      if (Accept("<")) {
        Number();
        Expect(">");
        name += "<";
      } else if (scopes_.size() > 1) {
        name += "#" + std::to_string(++renamed_);
      }
      scopes_.back()[written] = name;
      function_->registers[name] = type;
    } while (Accept(","));
    Expect(";");
  }

  std::string Resolve(std::string_view word) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto found = scope->find(std::string(word));
      if (found != scope->end() && found->second.back() != '<') return found->second;
    }
    return std::string(word);
  }

  void ReadStatement() {
    Statement statement;
    statement.line = Line();
    const char* begin = Peek().data();
    if (Accept("@")) {
      statement.guard_negated = Accept("!");
      statement.guard = Resolve(Next());
    }
    statement.opcode = Split(Next());
    while (!Accept(";")) {
      ReadGroup(&statement);
      if (Peek() != ";") Expect(",");
    }
    const char* end = tokens_[at_ - 1].text.data();
    statement.text.assign(begin, end);
    function_->statements.push_back(std::move(statement));
  }

  void ReadGroup(Statement* statement) {
    const size_t before = statement->operands.size();
    if (Peek() == "{" || Peek() == "(") {
      const std::string_view close = Next() == "{" ? "}" : ")";
      while (!Accept(close)) {
        statement->operands.push_back(ReadOperand());
        Accept(",");
      }
    } else {
      statement->operands.push_back(ReadOperand());
      if (Accept("|")) statement->operands.push_back(ReadOperand());
    }
    statement->groups.push_back(static_cast<int>(statement->operands.size() - before));
  }

  Operand ReadOperand() {
    if (Accept("[")) {
      Operand operand = ReadOperand();
      operand.kind = operand.kind == Kind::kInteger
                         ? (operand.offset = operand.bits, Kind::kAddress)
                         : Kind::kAddress;
      while (Peek() == "+" || Peek() == "-") operand.offset += Signed();
      Expect("]");
      return operand;
    }
    const bool negated = Accept("!");
    if (Peek() == "-") return Integer(Signed());
    const std::string_view word = Next();
    if (std::isdigit(static_cast<unsigned char>(word[0]))) return Literal(word);
    Operand operand;
    operand.name = Resolve(word);
    operand.negated = negated;
    return operand;
  }

  int64_t Signed() {
    const int64_t sign = Next() == "-" ? -1 : 1;
    if (Peek() == "-") return sign * Signed();
    return sign * static_cast<int64_t>(Literal(Next()).bits);
  }

  static Operand Integer(int64_t value) {
    Operand operand;
    operand.kind = Kind::kInteger;
    operand.bits = static_cast<uint64_t>(value);
    return operand;
  }

  Operand Literal(std::string_view word) const {
    const std::string text(word);
    Operand operand;
    char* end = nullptr;
    if (text.size() == 10 && (text.compare(0, 2, "0f") == 0 || text.compare(0, 2, "0F") == 0)) {
      operand.kind = Kind::kFloat;
      operand.bits = std::strtoull(text.c_str() + 2, &end, 16);
    } else if (text.size() == 18 &&
               (text.compare(0, 2, "0d") == 0 || text.compare(0, 2, "0D") == 0)) {
      operand.kind = Kind::kDouble;
      operand.bits = std::strtoull(text.c_str() + 2, &end, 16);
    } else {
      operand.kind = Kind::kInteger;
      operand.bits = std::strtoull(text.c_str(), &end, 0);
      if (*end == 'U') ++end;
    }
    if (*end != 0) Refuse(Line(), "`" + text + "` is no number");
    return operand;
  }

  std::string_view text_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  Module module_;
  Function* function_ = nullptr;
  std::vector<Scope> scopes_;
  int renamed_ = 0;
};

}  // namespace

size_t BytesOf(const std::string& type) {
  if (type == "pred") return 0;
  if (type == "f16x2" || type == "bf16x2" || type == "s16x2" || type == "u16x2") return 4;
  static const std::map<std::string, size_t> kBytes = {{"8", 1}, {"16", 2}, {"32", 4}, {"64", 8}};
  const size_t digits = type.find_first_of("0123456789");
  const auto found = kBytes.find(digits == std::string::npos ? "" : type.substr(digits));
  if (found == kBytes.end()) throw std::runtime_error("the type ." + type + " is not known");
  return found->second;
}

Module ParseModule(std::string_view text) { return Parser(text).Run(); }

}  // namespace ptx::syntax
