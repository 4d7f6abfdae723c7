// Compares cpp/device/cuda/cuda_runtime.h with CUDA's own header, when compiled:
//
//   nvcc -std=c++17 -I cpp -c tests/native/cuda_graph_layout.cc
#include <cuda_runtime_api.h>

#include <type_traits>

#include "device/cuda/cuda_runtime.h"

namespace ours = cupola::cuda;

template <typename, typename>
struct Same : std::false_type {};
template <typename Ours, typename... OurArguments, typename Theirs, typename... Arguments>
struct Same<Ours (*)(OurArguments...), Theirs (*)(Arguments...)> {
  template <typename... Pairs>
  static constexpr bool All(Pairs... same) {
    return (same && ...);
  }
  // Numbers, enumerations and pointers, of the same size in the same places.
  static constexpr bool value = [] {
    if constexpr (sizeof...(OurArguments) != sizeof...(Arguments)) {
      return false;
    } else {
      return sizeof(Ours) == sizeof(Theirs) &&
             All((sizeof(OurArguments) == sizeof(Arguments) &&
                  std::is_pointer_v<OurArguments> == std::is_pointer_v<Arguments>)...);
    }
  }();
};

#define SAME(name) static_assert(Same<decltype(ours::Runtime::name), decltype(&cuda##name)>::value)
SAME(StreamBeginCapture);
SAME(StreamEndCapture);
SAME(GraphInstantiate);
SAME(GraphLaunch);
SAME(GraphExecDestroy);
SAME(GraphDestroy);
SAME(GetLastError);
SAME(GetErrorString);
static_assert(ours::kCaptureModeRelaxed == cudaStreamCaptureModeRelaxed);
static_assert(CUDART_VERSION / 1000 == 13);
