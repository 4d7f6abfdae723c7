// A warp: its registers, where its lanes are, and what they copy in the background. Lanes that went
// different ways form groups; the group that is furthest behind goes on, and groups that meet
// become one. Of instructions that lanes execute together a group waits for the lanes that are
// named, as it does on devices from sm_70 on.
#ifndef CUPOLA_TESTS_PTX_WARP_H_
#define CUPOLA_TESTS_PTX_WARP_H_

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "memory.h"
#include "program.h"

namespace ptx {

// What the warps of a launch share.
struct Grid {
  const Kernel& kernel;
  const Launch& launch;
  GlobalMemory memory;
  std::vector<uint8_t> registers;  // as a warp starts
  std::mutex atomics;
};

// A cp.async that a lane began.
struct Copy {
  uint8_t lane;
  uint32_t group;            // of the lane's
  uint32_t to, bytes, read;  // of the bytes, so many are read, and the rest are zeros
  uint64_t from;
};

class Warp {
 public:
  enum class State { kReady, kAtBarrier, kDone };

  // Begins anew as a warp of a block.
  void Reset(Grid* grid, SharedMemory* shared, unsigned index, Dim3 block_index);
  // Until the next barrier or the end. Throws Fault.
  State Run();
  // Where it waits: the barrier's number, and of how many threads (0: all of the block).
  unsigned barrier() const { return barrier_; }
  unsigned barrier_threads() const { return barrier_threads_; }
  std::string Where() const;  // the line and text of the barrier
  unsigned threads() const { return static_cast<unsigned>(__builtin_popcount(lanes_)); }

  // For handlers.
  template <class T>
  T* At(uint32_t place) {
    return reinterpret_cast<T*>(registers_.data() + place);
  }
  // Where a lane's access goes.
  uint8_t* Memory(Space space, int lane, uint64_t address, size_t bytes, Access access);
  void CheckGlobal(uint64_t address, size_t bytes) {
    grid_->memory.Check(address, bytes, &last_range_);
  }
  SharedMemory& shared() { return *shared_; }
  Grid& grid() { return *grid_; }
  unsigned index() const { return index_; }
  uint32_t lanes() const { return lanes_; }
  std::vector<Copy>& copies() { return copies_; }
  std::array<uint32_t, kLanes>& copy_groups() { return copy_groups_; }

  uint64_t instructions = 0, lane_instructions = 0;

 private:
  struct Group {
    uint32_t pc, mask;
    bool waiting = false;  // for other lanes
  };

  // Picks the group that goes on. False: none can.
  bool Choose();
  // Until it has to be chosen anew, or the warp is at a barrier.
  void RunGroup();
  // These are true if the group goes on, as it is then.
  bool Step(const Instruction& instruction, uint32_t mask);
  bool Branch(const Instruction& instruction, uint32_t mask);
  bool Exit(uint32_t mask);
  bool Together(const Instruction& instruction, uint32_t mask);
  // Leaves those of a mask here, until lanes that are missing come, and lets the others go on.
  void Wait(uint32_t mask, uint32_t missing);
  void Add(uint32_t pc, uint32_t mask, bool waiting = false);
  uint32_t Guarded(const Instruction& instruction, uint32_t mask);
  [[noreturn]] void RefuseStuck();
  [[noreturn]] void Rethrow(const Fault& fault);
  void WriteSpecials(Dim3 block_index);

  Grid* grid_ = nullptr;
  SharedMemory* shared_ = nullptr;
  const Instruction* code_ = nullptr;
  unsigned index_ = 0;
  Dim3 block_index_;
  uint32_t lanes_ = 0, exited_ = 0;
  std::vector<Group> groups_;  // others than `current_`
  Group current_{0, 0};
  uint32_t limit_ = kNone;  // where the current group meets or passes another one
  unsigned barrier_ = 0, barrier_threads_ = 0;
  bool at_barrier_ = false;
  std::vector<uint8_t> registers_, local_;
  std::vector<Copy> copies_;
  std::array<uint32_t, kLanes> copy_groups_{};
  GlobalMemory::Range last_range_{1, 0};
};

template <class F>
void ForLanes(uint32_t mask, F f) {
  if (mask == kAll) {
    for (int lane = 0; lane < kLanes; ++lane) f(lane);
  } else {
    for (; mask; mask &= mask - 1) f(__builtin_ctz(mask));
  }
}

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_WARP_H_
