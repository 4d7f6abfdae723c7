// What a text of PTX says, before it is decoded: variables, functions, statements with their
// operands. Knows no opcode.
#ifndef CUPOLA_TESTS_PTX_SYNTAX_H_
#define CUPOLA_TESTS_PTX_SYNTAX_H_

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace ptx::syntax {

enum class Kind { kName, kInteger, kFloat, kDouble, kAddress };

// A register, symbol, label or literal; of an address [name + offset], [literal] or [register].
struct Operand {
  Kind kind = Kind::kName;
  std::string name;
  uint64_t bits = 0;     // of a literal
  int64_t offset = 0;    // of an address
  bool negated = false;  // !p
};

struct Statement {
  int line = 0;
  std::string text;
  std::string guard;  // a predicate, or empty
  bool guard_negated = false;
  std::vector<std::string> opcode;  // ld global v4 b32
  // Vectors are flattened, and d|p is two; `groups` has how many operands each had.
  std::vector<Operand> operands;
  std::vector<int> groups;
};

struct Variable {
  std::string space, type, name;  // "shared", "b8"
  size_t align = 1, count = 1;    // of elements; 0 of extern shared arrays
  bool is_extern = false;
  std::vector<Operand> initial;
};

struct Function {
  std::string name;
  bool entry = false;
  std::vector<Variable> results, parameters, variables;
  std::map<std::string, std::string> registers;  // name, or prefix<, -> type
  std::vector<Statement> statements;
  std::map<std::string, size_t> labels;                    // -> index of a statement
  std::map<std::string, std::vector<std::string>> tables;  // of brx.idx
};

struct Module {
  std::vector<Variable> variables;
  std::map<std::string, Function> functions;
};

struct Token {
  std::string_view text;
  int line;
};

// Throws std::runtime_error with the line.
std::vector<Token> Tokens(std::string_view text);
Module ParseModule(std::string_view text);

[[noreturn]] inline void Refuse(int line, const std::string& why) {
  throw std::runtime_error("line " + std::to_string(line) + ": " + why);
}

// Bytes of a fundamental type; 0: a predicate.
size_t BytesOf(const std::string& type);

}  // namespace ptx::syntax

#endif  // CUPOLA_TESTS_PTX_SYNTAX_H_
