#include "sampling/llguidance.h"

#include <dlfcn.h>

#include <stdexcept>

namespace cupola {

namespace {

template <typename Function>
void Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function == nullptr) throw std::runtime_error(std::string("it lacks ") + name);
}

void CheckVersion(const Llguidance& library) {
  const std::string version = library.version();  // "llguidance@1.9.1 derivre@..."
  const std::string wanted = std::string("llguidance@") + kLlguidanceVersion;
  if (version.substr(0, version.find(' ')) != wanted) {
    throw std::runtime_error("it is " + version + ", but Cupola needs " + wanted);
  }
}

}  // namespace

std::shared_ptr<const Llguidance> LoadLlguidance(const std::string& path) {
  // It keeps threads and thread-local state of its own, which no unloading could clean up.
  void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) throw std::runtime_error(dlerror());
  auto functions = std::make_shared<Llguidance>();
  Find(library, "llg_get_version", &functions->version);
  CheckVersion(*functions);
  Find(library, "llg_new_tokenizer_v2", &functions->new_tokenizer);
  Find(library, "llg_free_tokenizer", &functions->free_tokenizer);
  Find(library, "llg_constraint_init_set_defaults", &functions->set_defaults);
  Find(library, "llg_new_matcher", &functions->new_matcher);
  Find(library, "llg_clone_matcher", &functions->clone_matcher);
  Find(library, "llg_free_matcher", &functions->free_matcher);
  Find(library, "llg_matcher_get_error", &functions->error);
  Find(library, "llg_matcher_compute_mask_into", &functions->compute_mask);
  Find(library, "llg_matcher_consume_tokens", &functions->consume_tokens);
  Find(library, "llg_matcher_compute_ff_tokens", &functions->forced_tokens);
  Find(library, "llg_matcher_is_accepting", &functions->is_accepting);
  Find(library, "llg_matcher_is_stopped", &functions->is_stopped);
  return functions;
}

}  // namespace cupola
