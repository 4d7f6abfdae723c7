#include "warp.h"

#include <algorithm>
#include <string>

namespace ptx {
namespace {

constexpr uint8_t kPoison = 0xff;

uint32_t LanesBelow(unsigned count) { return count >= kLanes ? kAll : (1u << count) - 1; }

std::string Lanes(uint32_t mask) {
  std::string text;
  for (; mask; mask &= mask - 1)
    text += (text.empty() ? "" : ", ") + std::to_string(__builtin_ctz(mask));
  return text;
}

}  // namespace

void Warp::Reset(Grid* grid, SharedMemory* shared, unsigned index, Dim3 block_index) {
  grid_ = grid, shared_ = shared, code_ = grid->kernel.code.data(), index_ = index,
  block_index_ = block_index;
  const size_t threads = grid->launch.block.Count();
  lanes_ =
      LanesBelow(static_cast<unsigned>(std::min<size_t>(threads - size_t{index} * kLanes, kLanes)));
  exited_ = 0;
  groups_.clear();
  Add(0, lanes_);
  registers_ = grid->registers;
  local_.assign(grid->kernel.local_bytes * kLanes, kPoison);
  copies_.clear();
  copy_groups_.fill(0);
  WriteSpecials(block_index);
}

void Warp::WriteSpecials(Dim3 block_index) {
  const Dim3 grid = grid_->launch.grid, block = grid_->launch.block;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const unsigned thread = index_ * kLanes + lane;
    const uint32_t bit = 1u << lane;
    const auto dynamic = static_cast<uint32_t>(grid_->launch.dynamic_shared);
    const std::array<uint32_t, kNumSpecials> values = {
        thread % block.x,
        thread / block.x % block.y,
        thread / block.x / block.y,
        block.x,
        block.y,
        block.z,
        block_index.x,
        block_index.y,
        block_index.z,
        grid.x,
        grid.y,
        grid.z,
        lane,
        index_,
        bit,
        bit | (bit - 1),
        bit - 1,
        ~(bit - 1),
        ~(bit | (bit - 1)),
        dynamic,
        static_cast<uint32_t>(grid_->kernel.shared_bytes) + dynamic,
        0};
    for (int i = 0; i < kNumSpecials; ++i) {
      if (grid_->kernel.specials[i] != kNone)
        At<uint32_t>(grid_->kernel.specials[i])[lane] = values[i];
    }
  }
}

uint8_t* Warp::Memory(Space space, int lane, uint64_t address, size_t bytes, Access access) {
  if (space == Space::kGeneric) {
    if (address & kSharedWindow)
      return Memory(Space::kShared, lane, address - kSharedWindow, bytes, access);
    if (address & kLocalWindow)
      return Memory(Space::kLocal, lane, address - kLocalWindow, bytes, access);
  }
  if (space == Space::kShared) return shared_->At(address, bytes, index_, access);
  CheckAligned(address, bytes);
  if (space == Space::kLocal) {
    const size_t limit = grid_->kernel.local_bytes;
    if (address + bytes > limit || address > limit)
      RefuseAccess("outside of local memory: access", address, bytes, limit);
    return local_.data() + limit * lane + address;
  }
  CheckGlobal(address, bytes);
  return reinterpret_cast<uint8_t*>(address);
}

Warp::State Warp::Run() {
  at_barrier_ = false;
  try {
    while (Choose()) {
      RunGroup();
      if (at_barrier_) return State::kAtBarrier;
    }
    if (exited_ != lanes_) RefuseStuck();
  } catch (const Fault& fault) {
    Rethrow(fault);
  }
  return State::kDone;
}

void Warp::Add(uint32_t pc, uint32_t mask, bool waiting) {
  for (Group& group : groups_) {
    if (group.pc != pc) continue;
    group = {pc, group.mask | mask, false};
    return;
  }
  groups_.push_back({pc, mask, waiting});
}

bool Warp::Choose() {
  auto chosen = groups_.end();
  for (auto group = groups_.begin(); group != groups_.end(); ++group) {
    if (!group->waiting && (chosen == groups_.end() || group->pc < chosen->pc)) chosen = group;
  }
  if (chosen == groups_.end()) return false;
  current_ = *chosen;
  groups_.erase(chosen);
  limit_ = kNone;
  for (const Group& group : groups_) {
    if (!group.waiting) limit_ = std::min(limit_, group.pc);
  }
  return true;
}

uint32_t Warp::Guarded(const Instruction& instruction, uint32_t mask) {
  if (instruction.guard == kNone) return mask;
  const uint32_t flags = *At<uint32_t>(instruction.guard);
  return mask & (instruction.guard_negated ? ~flags : flags);
}

void Warp::RunGroup() {
  while (current_.pc < limit_) {
    const Instruction& instruction = code_[current_.pc];
    const uint32_t mask = Guarded(instruction, current_.mask);
    if (mask == 0) {
      ++current_.pc;
      continue;
    }
    ++instructions;
    lane_instructions += static_cast<uint64_t>(__builtin_popcount(mask));
    if (instruction.flow == Flow::kNext) {
      instruction.run(*this, instruction, mask);
      ++current_.pc;
    } else if (!Step(instruction, mask)) {
      return;
    }
  }
  Add(current_.pc, current_.mask);
}

bool Warp::Step(const Instruction& instruction, uint32_t mask) {
  switch (instruction.flow) {
    case Flow::kBranch:
    case Flow::kTable:
      return Branch(instruction, mask);
    case Flow::kExit:
      return Exit(mask);
    default:
      return Together(instruction, mask);
  }
}

bool Warp::Branch(const Instruction& instruction, uint32_t mask) {
  const uint32_t rest = current_.mask & ~mask;
  if (instruction.flow == Flow::kBranch && rest == 0) {
    current_.pc = instruction.target;
    return true;
  }
  if (instruction.flow == Flow::kBranch) {
    Add(instruction.target, mask);
  } else {
    const auto& table = grid_->kernel.tables[instruction.target];
    const uint32_t* index = At<uint32_t>(instruction.operands[0]);
    ForLanes(mask, [&](int lane) {
      if (index[lane] >= table.size())
        throw Fault("branch " + std::to_string(index[lane]) + " of a table of " +
                    std::to_string(table.size()));
      Add(table[index[lane]], 1u << lane);
    });
  }
  if (rest) Add(current_.pc + 1, rest);
  return false;
}

bool Warp::Exit(uint32_t mask) {
  exited_ |= mask;
  current_.mask &= ~mask;
  ++current_.pc;
  return current_.mask != 0;
}

void Warp::Wait(uint32_t mask, uint32_t missing) {
  const uint32_t never = missing & (exited_ | ~lanes_);
  if (never)
    throw Fault("lanes " + Lanes(never) +
                " are asked for, and do not take part: they ended, or there are none");
  const uint32_t rest = current_.mask & ~mask;
  if (rest) Add(current_.pc + 1, rest);
  Add(current_.pc, mask, true);
}

bool Warp::Together(const Instruction& instruction, uint32_t mask) {
  for (uint32_t rest = mask; rest;) {
    uint32_t members = lanes_, here = rest;
    if (instruction.members != kNone) {
      const uint32_t* asked = At<uint32_t>(instruction.members);
      members = asked[__builtin_ctz(rest)];
      here = 0;
      ForLanes(rest,
               [&](int lane) { here |= static_cast<uint32_t>(asked[lane] == members) << lane; });
    } else if (instruction.flow == Flow::kTogether) {
      members = kAll;
    }
    if (here & ~members)
      throw Fault("lanes " + Lanes(here & ~members) + " are not among those that are asked for");
    if (members & ~here) return Wait(rest, members & ~here), false;
    if (instruction.run) instruction.run(*this, instruction, here);
    rest &= ~here;
  }
  ++current_.pc;
  if (instruction.flow != Flow::kBarrier) return true;
  barrier_ = *At<uint32_t>(instruction.operands[0]);
  barrier_threads_ = instruction.count > 1 ? *At<uint32_t>(instruction.operands[1]) : 0;
  at_barrier_ = true;
  Add(current_.pc, current_.mask);
  return false;
}

void Warp::RefuseStuck() {
  current_ = groups_.front();
  std::string message = "lanes " + Lanes(current_.mask) + " wait for others, which do not come";
  for (size_t i = 1; i < groups_.size(); ++i) {
    message += "; lanes " + Lanes(groups_[i].mask) + " wait at line " +
               std::to_string(code_[groups_[i].pc].line);
  }
  throw Fault(message);
}

std::string Warp::Where() const {
  const uint32_t at = groups_.front().pc - 1;
  return "line " + std::to_string(code_[at].line) + ", `" + grid_->kernel.texts[at] + "`";
}

void Warp::Rethrow(const Fault& fault) {
  const Kernel& kernel = grid_->kernel;
  const std::string block = std::to_string(block_index_.x) + "," + std::to_string(block_index_.y) +
                            "," + std::to_string(block_index_.z);
  throw Fault(kernel.name + ", line " + std::to_string(code_[current_.pc].line) + ", `" +
              kernel.texts[current_.pc] + "`: " + fault.what() + " (block " + block + ", warp " +
              std::to_string(index_) + ")");
}

}  // namespace ptx
