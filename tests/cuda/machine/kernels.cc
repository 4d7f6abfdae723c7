// Modules, and launches of their kernels.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "machine.h"

namespace machine {

namespace {

// A launch's parameters, by value.
struct Arguments {
  explicit Arguments(const std::vector<size_t>& sizes, void** values) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const auto* begin = static_cast<const char*>(values[i]);
      copies.emplace_back(begin, begin + sizes[i]);
    }
  }

  std::vector<std::vector<char>> copies;
};

// Blocks of threads are shared out among so many of the host: CUPOLA_CUDA_THREADS, or 2.
unsigned HostThreads() {
  const char* threads = std::getenv("CUPOLA_CUDA_THREADS");
  return threads != nullptr ? static_cast<unsigned>(std::atoi(threads)) : 2;
}

// Registers of a block, which warps get in units.
int RegistersOf(int threads, int registers) {
  const int warps = (threads + kWarp - 1) / kWarp;
  const int of_warp = (registers * kWarp + kRegisterUnit - 1) / kRegisterUnit * kRegisterUnit;
  return warps * of_warp;
}

bool IsGrid(const CUlaunchConfig& config) {
  const bool grid = config.gridDimX >= 1 && config.gridDimX <= kMostGridX && config.gridDimY >= 1 &&
                    config.gridDimY <= kMostGridYZ && config.gridDimZ >= 1 &&
                    config.gridDimZ <= kMostGridYZ;
  const bool block = config.blockDimX >= 1 && config.blockDimX <= kMostX && config.blockDimY >= 1 &&
                     config.blockDimY <= kMostX && config.blockDimZ >= 1 &&
                     config.blockDimZ <= kMostZ;
  return grid && block &&
         config.blockDimX * config.blockDimY * config.blockDimZ <= unsigned{kMostThreads};
}

}  // namespace

CUresult Machine::LoadModule(const void* image, CUmodule* module) {
  auto made = std::make_unique<CUmod_st>();
  made->code = std::make_shared<Code>();
  std::string why;
  const CUresult result = Load(image, model_.architecture, made->code.get(), &why);
  if (result != CUDA_SUCCESS) {
    std::fprintf(stderr, "cuda stand-in: a module cannot be loaded: %s\n", why.c_str());
    return result;
  }
  *module = made.release();
  modules_.insert(*module);
  return CUDA_SUCCESS;
}

CUresult Machine::FindFunction(CUmodule module, const char* name, CUfunction* function) {
  if (modules_.count(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
  const auto bounds = module->code->kernels.find(name);
  if (bounds == module->code->kernels.end()) return CUDA_ERROR_NOT_FOUND;
  std::unique_ptr<CUfunc_st>& found = module->functions[name];
  if (found == nullptr) {
    found = std::make_unique<CUfunc_st>(CUfunc_st{module->code, name, bounds->second, 0});
    const auto most = static_cast<int>(kSharedBytes - bounds->second.shared_bytes);
    found->most_dynamic_shared_bytes = std::max(most, 0);
  }
  *function = found.get();
  return CUDA_SUCCESS;
}

// What was launched before is done first; a graph that still has its kernels is a fault.
CUresult Machine::UnloadModule(CUmodule module) {
  if (modules_.erase(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
  AwaitDevice();
  module->code->loaded = false;
  delete module;
  return CUDA_SUCCESS;
}

CUresult Machine::SetMostShared(CUfunction function, int bytes) {
  const size_t most = model_.most_shared_bytes - function->bounds.shared_bytes;
  if (bytes < 0 || static_cast<size_t>(bytes) > most) return CUDA_ERROR_INVALID_VALUE;
  function->most_dynamic_shared_bytes = bytes;
  return CUDA_SUCCESS;
}

CUresult Machine::LaunchKernel(const CUlaunchConfig& config, CUfunction function,
                               void** arguments) {
  CUstream_st* stream = StreamOf(config.hStream);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!IsGrid(config)) return CUDA_ERROR_INVALID_VALUE;
  if (config.numAttrs > 0) return CUDA_ERROR_NOT_SUPPORTED;  // clusters and the like: not here
  if (config.sharedMemBytes > static_cast<unsigned>(function->most_dynamic_shared_bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!Fits(config, *function)) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  const std::vector<size_t> sizes = function->code->program->ParameterBytes(function->name);
  size_t bytes = 0;
  for (const size_t size : sizes) bytes += size;
  if (bytes > kMostParameterBytes || (arguments == nullptr && !sizes.empty())) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  ptx::Launch launch;
  launch.entry = function->name;
  launch.grid = {config.gridDimX, config.gridDimY, config.gridDimZ};
  launch.block = {config.blockDimX, config.blockDimY, config.blockDimZ};
  launch.dynamic_shared = config.sharedMemBytes;
  launch.ranges = &memory_.ranges();
  launch.seed = ++num_launches_;
  launch.threads = HostThreads();
  const auto run = [this, launch, code = function->code, values = Arguments(sizes, arguments)] {
    if (!code->loaded) throw std::runtime_error(launch.entry + ": its module was unloaded");
    std::vector<void*> pointers;
    for (const auto& copy : values.copies) pointers.push_back(const_cast<char*>(copy.data()));
    ptx::Launch now = launch;
    now.arguments = pointers.data();
    try {
      ptx::Execute(*code->program, now);
    } catch (const std::exception& error) {
      throw std::runtime_error(launch.entry + ": " + error.what());
    }
    journal_.CountKernel(launch.entry);
  };
  // Errors of streams have the same numbers in both interfaces.
  return static_cast<CUresult>(Enqueue(stream, run));
}

// What the kernel itself allows: threads that it declares, and registers.
bool Machine::Fits(const CUlaunchConfig& config, const CUfunc_st& function) const {
  const auto threads = static_cast<int>(config.blockDimX * config.blockDimY * config.blockDimZ);
  const Bounds& bounds = function.bounds;
  if (bounds.threads > 0 && threads > bounds.threads) return false;
  return RegistersOf(threads, bounds.registers) <= kRegisters;
}

}  // namespace machine
