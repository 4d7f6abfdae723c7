#include "journal.h"

#include <utility>

namespace machine {

std::string Journal::TakeLines() { return std::exchange(lines_, std::string()); }

std::string Journal::Executed() const {
  std::string lines;
  for (const auto& [name, times] : executed_) lines += name + ' ' + std::to_string(times) + '\n';
  return lines;
}

bool Journal::TakeFailure(const std::string& function) {
  if (function.empty() || failing_ != function) return false;
  failing_.clear();
  return true;
}

}  // namespace machine
