#include "model.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace machine {

namespace {

constexpr size_t kKiB = 1024, kMiB = 1024 * kKiB;

constexpr Model kModels[] = {
    {80, 108, 163 * kKiB, 40 * kMiB, 0},
    {89, 142, 99 * kKiB, 96 * kMiB, 0},
    {90, 132, 227 * kKiB, 50 * kMiB, 0},
    {100, 148, 227 * kKiB, 126 * kMiB, 0},
};

}  // namespace

std::string Model::name() const {
  return "an interpreter of PTX in place of sm_" + std::to_string(architecture);
}

std::optional<int> Model::Attribute(int attribute) const {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return kMostThreads;
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      return kMostX;
    case cudaDevAttrMaxBlockDimZ:
      return kMostZ;
    case cudaDevAttrMaxGridDimX:
      return kMostGridX;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return kMostGridYZ;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return kSharedBytes;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return static_cast<int>(most_shared_bytes);
    case cudaDevAttrWarpSize:
      return kWarp;
    case cudaDevAttrMaxRegistersPerBlock:
      return kRegisters;
    case cudaDevAttrClockRate:
      return 1000000;
    case cudaDevAttrMultiProcessorCount:
      return multiprocessors;
    case cudaDevAttrL2CacheSize:
      return static_cast<int>(cache_bytes);
    case cudaDevAttrComputeCapabilityMajor:
      return major();
    case cudaDevAttrComputeCapabilityMinor:
      return minor();
    case cudaDevAttrUnifiedAddressing:
      return 1;
    default:
      return std::nullopt;
  }
}

cudaDeviceProp Model::Properties() const {
  cudaDeviceProp properties{};
  std::snprintf(properties.name, sizeof properties.name, "%s", name().c_str());
  properties.totalGlobalMem = memory_bytes;
  properties.sharedMemPerBlock = kSharedBytes;
  properties.sharedMemPerBlockOptin = most_shared_bytes;
  properties.sharedMemPerMultiprocessor = most_shared_bytes + kReservedSharedBytes;
  properties.reservedSharedMemPerBlock = kReservedSharedBytes;
  properties.regsPerBlock = kRegisters;
  properties.warpSize = kWarp;
  properties.maxThreadsPerBlock = kMostThreads;
  const int threads[] = {kMostX, kMostX, kMostZ};
  std::memcpy(properties.maxThreadsDim, threads, sizeof threads);
  const int blocks[] = {static_cast<int>(kMostGridX), kMostGridYZ, kMostGridYZ};
  std::memcpy(properties.maxGridSize, blocks, sizeof blocks);
  properties.major = major();
  properties.minor = minor();
  properties.multiProcessorCount = multiprocessors;
  properties.l2CacheSize = static_cast<int>(cache_bytes);
  properties.unifiedAddressing = 1;
  return properties;
}

Model ModelOfEnvironment() {
  const char* arch = std::getenv("CUPOLA_CUDA_ARCH");
  const char* memory = std::getenv("CUPOLA_CUDA_MEMORY");
  const int wanted = std::atoi(arch != nullptr ? arch + std::strlen("sm_") : "90");
  for (Model model : kModels) {
    if (model.architecture != wanted) continue;
    model.memory_bytes = std::strtoul(memory != nullptr ? memory : "256", nullptr, 10) * kMiB;
    return model;
  }
  std::fprintf(stderr, "CUPOLA_CUDA_ARCH is %s, which is no architecture that is known here\n",
               arch);
  std::abort();
}

}  // namespace machine
