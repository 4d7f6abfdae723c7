#include "device/cuda/cuda_runtime.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace cupola::cuda {

namespace {

constexpr char kLibrary[] = "libcudart.so.13";  // what this TVM is linked with

template <typename Function>
void Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function != nullptr) return;
  throw std::runtime_error(std::string(kLibrary) + " has no function " + name);
}

Runtime Load() {
  void* library = dlopen(kLibrary, RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) throw std::runtime_error(std::string(kLibrary) + " is not loaded");
  Runtime runtime;
#define CUPOLA_FIND(name) Find(library, "cuda" #name, &runtime.name)
  CUPOLA_FIND(StreamBeginCapture);
  CUPOLA_FIND(StreamEndCapture);
  CUPOLA_FIND(GraphInstantiate);
  CUPOLA_FIND(GraphLaunch);
  CUPOLA_FIND(GraphExecDestroy);
  CUPOLA_FIND(GraphDestroy);
  CUPOLA_FIND(GetLastError);
  CUPOLA_FIND(GetErrorString);
#undef CUPOLA_FIND
  return runtime;
}

}  // namespace

const Runtime& LoadedRuntime() {
  static const Runtime runtime = Load();
  return runtime;
}

}  // namespace cupola::cuda
