// The door for Python's ctypes: handles, codes (0: done), and the last error of a thread.
#include <exception>

#include "machine.h"

namespace {

thread_local std::string last_error;

template <class F>
int Guarded(F run) {
  try {
    run();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

const ptx::Program& Of(const void* program) { return *static_cast<const ptx::Program*>(program); }

}  // namespace

extern "C" {

const char* ptx_last_error() { return last_error.c_str(); }

// Null: the text was refused.
void* ptx_parse(const char* text, size_t length) {
  ptx::Program* program = nullptr;
  Guarded([&] { program = ptx::Parse({text, length}).release(); });
  return program;
}
void ptx_free(void* program) { delete static_cast<ptx::Program*>(program); }

// Bytes of up to `most` parameters of a kernel. Returns how many it has, or -1.
int ptx_parameters(const void* program, const char* entry, size_t* bytes, int most) {
  int count = -1;
  Guarded([&] {
    const std::vector<size_t> found = Of(program).ParameterBytes(entry);
    for (size_t i = 0; i < found.size() && i < static_cast<size_t>(most); ++i) bytes[i] = found[i];
    count = static_cast<int>(found.size());
  });
  return count;
}

struct PtxLaunch {
  const char* entry;
  unsigned grid[3], block[3];
  size_t dynamic_shared;
  void** arguments;
  const uint64_t* ranges;  // begin and end of each, or null: no limits
  size_t num_ranges;
  unsigned seed, threads, races;
};

// counts: instructions of warps, of threads.
int ptx_execute(const void* program, const PtxLaunch* given, uint64_t* counts) {
  return Guarded([&] {
    ptx::Ranges ranges;
    for (size_t i = 0; i < given->num_ranges; ++i) {
      const uint64_t begin = given->ranges[2 * i], end = given->ranges[2 * i + 1];
      ranges.Add(reinterpret_cast<const void*>(begin), end - begin);
    }
    ptx::Launch launch;
    launch.entry = given->entry;
    launch.grid = {given->grid[0], given->grid[1], given->grid[2]};
    launch.block = {given->block[0], given->block[1], given->block[2]};
    launch.dynamic_shared = given->dynamic_shared, launch.arguments = given->arguments;
    launch.ranges = given->ranges ? &ranges : nullptr;
    launch.seed = given->seed, launch.threads = given->threads, launch.races = given->races != 0;
    const ptx::Counts found = ptx::Execute(Of(program), launch);
    counts[0] = found.instructions, counts[1] = found.lanes;
  });
}

}  // extern "C"
