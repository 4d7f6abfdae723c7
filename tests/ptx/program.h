// What is executed: instructions in a compact form, of kernels that have their functions inlined.
//
// A warp's registers are one block of bytes, in which each register has the values of 32 lanes side
// by side; a predicate is one word, a bit for each lane. Literals, addresses of variables,
// parameters and special registers are registers too, which are filled in before a warp starts, so
// that an operand is always a place in that block.
#ifndef CUPOLA_TESTS_PTX_PROGRAM_H_
#define CUPOLA_TESTS_PTX_PROGRAM_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "machine.h"

namespace ptx {

constexpr int kLanes = 32;
constexpr uint32_t kAll = ~uint32_t{0};
constexpr uint32_t kNone = ~uint32_t{0};  // no operand

class Warp;
struct Instruction;

// Executes an instruction for the lanes of a mask.
using Handler = void (*)(Warp&, const Instruction&, uint32_t mask);

enum class Flow : uint8_t {
  kNext,
  kBranch,  // to `target`
  kTable,   // to one of a table, by the first operand
  kExit,
  kTogether,  // all lanes of the mask in operand `members` (if it is kNone, of the warp) execute it
              // together
  kBarrier,   // of the block
  kArrive,    // at a barrier, without waiting
};

struct Instruction {
  Handler run = nullptr;
  const uint32_t* operands = nullptr;  // places in the block of registers
  int64_t offset = 0;                  // of an address
  uint32_t guard = kNone;
  uint32_t target = 0;  // an instruction, or a table
  uint32_t members = kNone;
  uint16_t count = 0;  // of a vector; else of operands
  uint16_t count_of_operands = 0;
  uint16_t mode = 0;  // what else a handler wants to know
  bool guard_negated = false;
  Flow flow = Flow::kNext;
  int line = 0;
};

// A value that is written into the block of registers before a warp starts.
struct Constant {
  uint32_t place;
  uint8_t bytes;  // 0: a predicate
  uint64_t bits;
};

struct Parameter {
  size_t offset, bytes;  // among the kernel's parameters
};

struct ParameterUse {
  uint32_t place;
  size_t offset, bytes;
};

// Indices of places of special registers.
enum Special {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaX,
  kCtaY,
  kCtaZ,
  kNctaX,
  kNctaY,
  kNctaZ,
  kLane,
  kWarp,
  kMaskEq,
  kMaskLe,
  kMaskLt,
  kMaskGe,
  kMaskGt,
  kDynamicShared,
  kTotalShared,
  kClock,
  kNumSpecials,
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<uint32_t> operands;
  std::vector<std::string> texts;  // of the instructions
  std::vector<std::vector<uint32_t>> tables;
  std::vector<Constant> constants;
  std::vector<Parameter> parameters;
  std::vector<ParameterUse> parameter_uses;
  std::array<uint32_t, kNumSpecials> specials;
  size_t register_bytes = 0, shared_bytes = 0, local_bytes = 0;  // local ones of a lane
};

struct Module {
  std::map<std::string, Kernel> kernels;
  struct Variable {
    std::unique_ptr<uint8_t[]> storage;
    uint8_t* data;
    size_t bytes;
  };
  std::map<std::string, Variable> variables;
};

// What a kernel did that it may not; says where once it has passed the warp.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_PROGRAM_H_
