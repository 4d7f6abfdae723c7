// An interpreter of PTX: executes CUDA's kernels on the processor, functionally, so that they can
// be compared with other arithmetic where there is no GPU. This is its door; a test tool, it knows
// nothing of TVM, of CUDA's driver, or of files.
//
// Addresses of the global space are addresses of this process. A kernel's faults (an access outside
// of memory, a barrier that a thread does not reach, a race in shared memory, ...) are
// std::runtime_error, whose message names the line of the text and the instruction.
#ifndef CUPOLA_TESTS_PTX_MACHINE_H_
#define CUPOLA_TESTS_PTX_MACHINE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ptx {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  size_t Count() const { return size_t{x} * y * z; }
};

// The memory that kernels may touch in the global space. May be used by several threads at once.
class Ranges {
 public:
  void Add(const void* begin, size_t bytes);
  void Remove(const void* begin);
  // (begin, end) of each, in order.
  std::vector<std::pair<uint64_t, uint64_t>> List() const;

 private:
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, uint64_t> ends_;  // by where they begin
};

struct Module;

// A module of PTX, decoded. Its __device__ and constant variables live as long as it does.
class Program {
 public:
  explicit Program(std::unique_ptr<Module> module);
  ~Program();

  std::vector<std::string> Entries() const;
  // Bytes of each parameter of an entry. Throws if there is no such entry.
  std::vector<size_t> ParameterBytes(const std::string& entry) const;
  // Where a variable of the module lies, and its bytes; {nullptr, 0} if there is no such variable.
  std::pair<void*, size_t> Variable(const std::string& name) const;
  const Module& module() const { return *module_; }

 private:
  std::unique_ptr<Module> module_;
};

// Throws std::runtime_error naming line and instruction.
std::unique_ptr<Program> Parse(std::string_view text);

struct Launch {
  std::string entry;
  Dim3 grid, block;
  size_t dynamic_shared = 0;   // bytes
  void** arguments = nullptr;  // as cuLaunchKernel's kernelParams

  const Ranges* ranges = nullptr;  // if given, the only global memory that may be touched, besides
                                   // the module's variables
  unsigned seed =
      0;  // decides the order of warps and blocks, and what fresh memory and registers hold
  unsigned threads =
      0;  // of the host, among which blocks are shared out; 0: as many as it has processors
  bool races = true;  // look for races in shared memory
};

struct Counts {
  uint64_t instructions = 0;  // of warps
  uint64_t lanes = 0;         // of threads
};

// Returns when the whole grid is done. May be called by several threads at once.
Counts Execute(const Program& program, const Launch& launch);

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_MACHINE_H_
