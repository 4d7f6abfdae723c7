#include "model/library_threads.h"

#include <dlfcn.h>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/reflection/registry.h>

#include <cstdint>
#include <stdexcept>

namespace cupola {

namespace {

// As in TVM's c_backend_api.h, which tvm_ffi does not bring.
struct GroupEnv {
  void* sync_handle;  // ours: the team, or null for a thread alone
  int32_t num_task;
};
using Region = int (*)(int task, GroupEnv* env, void* data);

// The team of the calling thread.
thread_local ThreadTeam* current_team = nullptr;
thread_local int32_t current_num_workers = 1;

struct Launch {
  Region region;
  GroupEnv env;
  void* data;
};

int LaunchOnTeam(Region region, void* data, int /*num_task: always "all"*/) {
  Launch launch{region, {current_team, current_num_workers}, data};
  const auto work = [](int32_t worker, void* context) {
    auto* launch = static_cast<Launch*>(context);
    return launch->region(worker, &launch->env, launch->data);
  };
  const int status = current_team == nullptr
                         ? work(0, &launch)
                         : current_team->Run(current_num_workers, work, &launch);
  if (status != 0) TVMFFIErrorSetRaisedFromCStr("RuntimeError", "a worker of the library failed");
  return status;
}

int WaitForTeam(int task, GroupEnv* env) {
  if (env->sync_handle != nullptr) static_cast<ThreadTeam*>(env->sync_handle)->Barrier(task);
  return 0;
}

// A library without parallel regions has no such pointer.
template <typename Function>
void Fill(void* library, const char* name, Function function) {
  auto* pointer = static_cast<Function*>(dlsym(library, name));
  if (pointer != nullptr) *pointer = function;
}

}  // namespace

void RunOnTeams(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) throw std::runtime_error(path + " is not loaded");
  Fill(library, "__TVMBackendParallelLaunch", &LaunchOnTeam);
  Fill(library, "__TVMBackendParallelBarrier", &WaitForTeam);
  dlclose(library);  // whoever loaded it still has it
}

TeamScope::TeamScope(ThreadTeam* team, int32_t num_workers) {
  current_team = team;
  current_num_workers = num_workers;
}

TeamScope::~TeamScope() {
  current_team = nullptr;
  current_num_workers = 1;
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  // The compiled step asks this before it deals work out (python/cupola/compiler/launch.py).
  refl::GlobalDef().def("cupola.num_workers", [] { return int64_t{current_num_workers}; });
}

}  // namespace cupola
