// What the typed doors to compiled libraries (TVM Relax virtual machines) share.
#ifndef CUPOLA_MODEL_LIBRARY_H_
#define CUPOLA_MODEL_LIBRARY_H_

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "support/thread_budget.h"
#include "support/thread_team.h"

namespace cupola {

// A loaded library. Its kernels run on `device`; where that is the CPU, its parallel regions run on
// the team of the calling thread.
class Library {
 public:
  explicit Library(const std::string& path, DLDevice device = {kDLCPU, 0});
  tvm::ffi::Function FunctionOf(const std::string& name) const;

 private:
  tvm::ffi::Module vm_;
};

// Calls into TVM; its errors, whose what() is a traceback, become std::runtime_error of one
// sentence.
template <typename Call>
auto Translated(const Call& call) {
  try {
    return call();
  } catch (const tvm::ffi::Error& error) {
    throw std::runtime_error(error.kind() + ": " + error.message());
  }
}

// The threads of a model's steps: a team, and how much of it works at present.
class StepThreads {
 public:
  explicit StepThreads(const TeamOptions& options) : team_(options), budget_(team_.size()) {}
  // Calls a library's function on the team. Throws std::runtime_error with one sentence.
  tvm::ffi::Tensor Run(const std::function<tvm::ffi::Tensor()>& step);

 private:
  ThreadTeam team_;
  ThreadBudget budget_;
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_LIBRARY_H_
