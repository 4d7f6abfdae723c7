// Faults on purpose: places in the code where a test, or an operator, can make something go wrong.
//
// They are compiled in always and off unless set; an unset one costs one relaxed load. A setting is
// a list such as "forward=throw:0.1;publish=sleep:50ms*3":
//
//   name=throw[:probability][*count]   throws InjectedFault
//   name=sleep:TIMEms[*count]          takes that long
//
// `count` bounds how often it happens. Which visits of a place are hit follows from their number
// alone, so that a run can be repeated. The places: schedule, allocate, forward, record, sample,
// publish.
#ifndef CUPOLA_SUPPORT_FAILPOINT_H_
#define CUPOLA_SUPPORT_FAILPOINT_H_

#include <atomic>
#include <stdexcept>
#include <string>

namespace cupola {

struct InjectedFault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Replaces all settings; "" turns everything off. Throws std::invalid_argument, and changes
// nothing, when it cannot be read. The settings are the process's.
void SetFailpoints(const std::string& settings);

// Takes over the environment variable CUPOLA_FAILPOINTS, the first time that it is called.
void ReadFailpointsOnce();

namespace failpoint_internal {
extern std::atomic<bool> any;
void Visit(const char* name);
}  // namespace failpoint_internal

inline void Failpoint(const char* name) {
  if (failpoint_internal::any.load(std::memory_order_relaxed)) failpoint_internal::Visit(name);
}

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_FAILPOINT_H_
