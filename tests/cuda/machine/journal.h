// What was called, for tests, and calls that tests want to fail.
#ifndef CUPOLA_TESTS_CUDA_MACHINE_JOURNAL_H_
#define CUPOLA_TESTS_CUDA_MACHINE_JOURNAL_H_

#include <map>
#include <string>

namespace machine {

class Journal {
 public:
  void Note(const std::string& line) { lines_ += line + '\n'; }
  // What was noted since it was last asked.
  std::string TakeLines();

  void CountKernel(const std::string& name) { ++executed_[name]; }
  // "NAME TIMES", a line each: kernels that were executed to their end.
  std::string Executed() const;

  // The next call of a function fails.
  void LetFail(const std::string& function) { failing_ = function; }
  // Whether that is this call.
  bool TakeFailure(const std::string& function);

 private:
  std::string lines_;
  std::string failing_;
  std::map<std::string, long> executed_;
};

}  // namespace machine

#endif  // CUPOLA_TESTS_CUDA_MACHINE_JOURNAL_H_
