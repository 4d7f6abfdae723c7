// cp.async: what a lane copies comes when the lane waits for it and no sooner; until then its
// destination holds poison.
#include <algorithm>

#include "operations.h"

namespace ptx {
namespace {

constexpr uint8_t kPoison = 0xff;

// What a lane began in groups before `group` has come.
void Arrive(Warp& warp, uint32_t mask, uint32_t pending, bool uncommitted) {
  auto& copies = warp.copies();
  const auto arrives = [&](const Copy& copy) {
    const uint32_t now = warp.copy_groups()[copy.lane];
    return (mask >> copy.lane & 1) && (uncommitted || copy.group + pending < now);
  };
  for (const Copy& copy : copies) {
    if (!arrives(copy)) continue;
    uint8_t* to = warp.shared().At(copy.to, copy.bytes, warp.index(), Access::kWrite);
    std::memset(to, 0, copy.bytes);
    if (copy.read == 0) continue;
    std::memcpy(to, reinterpret_cast<const uint8_t*>(copy.from), copy.read);
  }
  copies.erase(std::remove_if(copies.begin(), copies.end(), arrives), copies.end());
}

void Commit(Warp& warp, const Instruction&, uint32_t mask) {
  ForLanes(mask, [&](int lane) { ++warp.copy_groups()[lane]; });
}
void WaitAll(Warp& warp, const Instruction&, uint32_t mask) { Arrive(warp, mask, 0, true); }
void WaitGroup(Warp& warp, const Instruction& instruction, uint32_t mask) {
  Arrive(warp, mask, warp.At<uint32_t>(instruction.operands[0])[__builtin_ctz(mask)], false);
}

// Operands: to, from, bytes, [bytes that are read].
template <class Address>
void Begin(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint32_t* o = instruction.operands;
  const auto* to = warp.At<Address>(o[0]);
  const auto* from = warp.At<uint64_t>(o[1]);
  ForLanes(mask, [&](int lane) {
    const uint32_t bytes = warp.At<uint32_t>(o[2])[lane];
    const uint32_t read = instruction.count > 3 ? warp.At<uint32_t>(o[3])[lane] : bytes;
    if (bytes != 4 && bytes != 8 && bytes != 16)
      throw Fault("a copy of " + std::to_string(bytes) + " bytes");
    if (read > bytes)
      throw Fault("a copy reads " + std::to_string(read) + " of " + std::to_string(bytes) +
                  " bytes");
    const auto at = static_cast<uint32_t>(to[lane] + instruction.offset);
    std::memset(warp.shared().At(at, bytes, warp.index(), Access::kWrite), kPoison, bytes);
    CheckAligned(from[lane], bytes);
    if (read) warp.CheckGlobal(from[lane], read);
    warp.copies().push_back(
        {static_cast<uint8_t>(lane), warp.copy_groups()[lane], at, bytes, read, from[lane]});
  });
}

}  // namespace

void AddCopies(Table* table) {
  (*table)["cp.async.commit_group"] = {Commit, {}};
  (*table)["cp.async.wait_group"] = {WaitGroup, {4}};
  (*table)["cp.async.wait_all"] = {WaitAll, {}};
}

Handler CopyHandler(bool wide_address) { return wide_address ? Begin<uint64_t> : Begin<uint32_t>; }

}  // namespace ptx
