#include "device/webgpu/context.h"

#include <memory>
#include <vector>

namespace cupola::wgpu {

namespace {

// Never destroyed: drivers end their threads in an order of their own when the process ends.
struct Process {
  std::mutex mutex;
  std::unique_ptr<Adapters> adapters;
  std::vector<std::unique_ptr<Context>> contexts;
};

Process* TheProcess() {
  static auto* process = new Process();
  return process;
}

thread_local int current_device = 0;

}  // namespace

const Adapters& LoadAdapters(const std::string& path) {
  Process* process = TheProcess();
  const std::lock_guard<std::mutex> lock(process->mutex);
  if (process->adapters == nullptr) {
    process->adapters = std::make_unique<Adapters>(LoadApi(path));
    process->contexts.resize(process->adapters->size());
  }
  return *process->adapters;
}

Context* ContextOf(int index) {
  Process* process = TheProcess();
  const std::lock_guard<std::mutex> lock(process->mutex);
  if (process->adapters == nullptr) Raise("wgpu-native is not loaded");
  const size_t count = process->contexts.size();
  if (index < 0 || static_cast<size_t>(index) >= count) {
    Raise("there is no WebGPU device " + std::to_string(index) + "; this machine has " +
          std::to_string(count));
  }
  std::unique_ptr<Context>& context = process->contexts[index];
  if (context == nullptr) context = std::make_unique<Context>(*process->adapters, index);
  return context.get();
}

int CurrentDevice() { return current_device; }

void SetCurrentDevice(int index) { current_device = index; }

}  // namespace cupola::wgpu
