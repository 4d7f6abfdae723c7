#include "support/failpoint.h"

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>

#include "support/rng.h"

namespace cupola {

namespace failpoint_internal {

std::atomic<bool> any{false};

}  // namespace failpoint_internal

namespace {

struct Fault {
  bool throws = false;
  double probability = 1.0;
  int64_t sleep_ms = 0;
  int64_t count_left = std::numeric_limits<int64_t>::max();
  uint64_t visits = 0;
};

// One for the process, as the places are.
struct Settings {
  std::mutex mutex;
  std::map<std::string, Fault> faults;
};

Settings& TheSettings() {
  static Settings settings;
  return settings;
}

bool IsPlace(const std::string& name) {
  for (const char* place : {"schedule", "allocate", "forward", "record", "sample", "publish"}) {
    if (name == place) return true;
  }
  return false;
}

[[noreturn]] void Refuse(const std::string& setting) {
  throw std::invalid_argument("the failpoint `" + setting +
                              "` is neither name=throw[:probability][*count] nor "
                              "name=sleep:TIMEms[*count] with a name that exists");
}

// Cuts what follows `mark` off `*text`, and returns it.
std::string CutOff(char mark, std::string* text) {
  const size_t at = text->find(mark);
  if (at == std::string::npos) return "";
  const std::string rest = text->substr(at + 1);
  text->resize(at);
  return rest;
}

template <typename Number>
Number ReadNumber(const std::string& text, const std::string& unit, const std::string& setting) {
  std::istringstream stream(text);
  Number number{};
  std::string rest;
  if (!(stream >> number) || number < 0) Refuse(setting);
  stream >> rest;
  if (rest != unit) Refuse(setting);
  return number;
}

Fault ReadFault(std::string action, const std::string& setting) {
  Fault fault;
  const std::string count = CutOff('*', &action);
  if (!count.empty()) fault.count_left = ReadNumber<int64_t>(count, "", setting);
  const std::string argument = CutOff(':', &action);
  if (action == "throw") {
    fault.throws = true;
    if (!argument.empty()) fault.probability = ReadNumber<double>(argument, "", setting);
  } else if (action == "sleep") {
    fault.sleep_ms = ReadNumber<int64_t>(argument, "ms", setting);
  } else {
    Refuse(setting);
  }
  return fault;
}

}  // namespace

void SetFailpoints(const std::string& settings) {
  std::map<std::string, Fault> faults;
  std::istringstream stream(settings);
  for (std::string setting; std::getline(stream, setting, ';');) {
    std::string name = setting;
    const std::string action = CutOff('=', &name);
    if (!IsPlace(name)) Refuse(setting);
    faults[name] = ReadFault(action, setting);
  }
  const std::lock_guard<std::mutex> lock(TheSettings().mutex);
  TheSettings().faults = std::move(faults);
  failpoint_internal::any = !TheSettings().faults.empty();
}

void ReadFailpointsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    const char* settings = std::getenv("CUPOLA_FAILPOINTS");
    if (settings != nullptr) SetFailpoints(settings);
  });
}

void failpoint_internal::Visit(const char* name) {
  int64_t sleep_ms = 0;
  {
    const std::lock_guard<std::mutex> lock(TheSettings().mutex);
    const auto found = TheSettings().faults.find(name);
    if (found == TheSettings().faults.end()) return;
    Fault& fault = found->second;
    if (fault.count_left == 0 || Uniform(0, fault.visits++) >= fault.probability) return;
    --fault.count_left;
    if (fault.throws) throw InjectedFault(std::string("injected fault in ") + name);
    sleep_ms = fault.sleep_ms;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(sleep_ms));
}

}  // namespace cupola
