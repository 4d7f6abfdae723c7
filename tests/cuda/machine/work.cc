#include "work.h"

#include <algorithm>

namespace machine {

void Finish(const WorkPtr& work) {
  std::vector<WorkPtr> stack;
  if (work != nullptr) stack.push_back(work);
  while (!stack.empty()) {
    const WorkPtr next = stack.back();
    const auto before = std::find_if(next->after.begin(), next->after.end(),
                                     [](const WorkPtr& other) { return !other->done; });
    if (!next->done && before != next->after.end()) {
      stack.push_back(*before);
      continue;
    }
    stack.pop_back();
    if (next->done) continue;
    next->done = true;
    next->after.clear();
    next->run();
  }
}

}  // namespace machine
