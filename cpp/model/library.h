// What the typed doors to compiled libraries (TVM Relax virtual machines) share.
#ifndef CUPOLA_MODEL_LIBRARY_H_
#define CUPOLA_MODEL_LIBRARY_H_

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/thread_budget.h"
#include "support/thread_team.h"

namespace cupola {

// A loaded library, whose parallel regions run on the team of the calling thread.
class Library {
 public:
  explicit Library(const std::string& path);
  tvm::ffi::Function FunctionOf(const std::string& name) const;

 private:
  tvm::ffi::Module vm_;
};

// An int32 argument that changes with every step: one allocation, seen through views of its front.
class StepBuffer {
 public:
  // A tensor [values.size()] that holds `values` until the next call.
  tvm::ffi::Tensor View(const std::vector<int32_t>& values);

 private:
  tvm::ffi::Optional<tvm::ffi::Tensor> storage_;
};

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
