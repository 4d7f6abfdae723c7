// Loads, stores, and moves between registers of different sizes.
#include "operations.h"

namespace ptx {
namespace {

template <class T, class Address>
void Load(Warp& warp, const Instruction& instruction, uint32_t mask, Space space) {
  const auto* address = warp.At<Address>(instruction.operands[instruction.count]);
  const size_t bytes = sizeof(T) * instruction.count;
  // All addresses before all results: a result may lie where the address was.
  std::array<const uint8_t*, kLanes> from;
  ForLanes(mask, [&](int lane) {
    from[lane] = warp.Memory(space, lane, address[lane] + instruction.offset, bytes, Access::kRead);
  });
  for (int i = 0; i < instruction.count; ++i) {
    T* to = warp.At<T>(instruction.operands[i]);
    ForLanes(mask,
             [&](int lane) { std::memcpy(to + lane, from[lane] + sizeof(T) * i, sizeof(T)); });
  }
}

template <class T, class Address>
void Store(Warp& warp, const Instruction& instruction, uint32_t mask, Space space) {
  const auto* address = warp.At<Address>(instruction.operands[0]);
  const size_t bytes = sizeof(T) * instruction.count;
  ForLanes(mask, [&](int lane) {
    uint8_t* to =
        warp.Memory(space, lane, address[lane] + instruction.offset, bytes, Access::kWrite);
    for (int i = 0; i < instruction.count; ++i) {
      std::memcpy(to + sizeof(T) * i, warp.At<T>(instruction.operands[i + 1]) + lane, sizeof(T));
    }
  });
}

template <class T, class Address, bool kLoad, Space kSpace>
void Run(Warp& warp, const Instruction& instruction, uint32_t mask) {
  if constexpr (kLoad) {
    Load<T, Address>(warp, instruction, mask, kSpace);
  } else {
    Store<T, Address>(warp, instruction, mask, kSpace);
  }
}

template <class T, class Address, bool kLoad>
Handler OfSpace(Space space) {
  switch (space) {
    case Space::kGlobal:
      return Run<T, Address, kLoad, Space::kGlobal>;
    case Space::kShared:
      return Run<T, Address, kLoad, Space::kShared>;
    case Space::kLocal:
      return Run<T, Address, kLoad, Space::kLocal>;
    default:
      return Run<T, Address, kLoad, Space::kGeneric>;
  }
}

template <class Address, bool kLoad>
Handler OfBytes(Space space, size_t bytes) {
  switch (bytes) {
    case 1:
      return OfSpace<uint8_t, Address, kLoad>(space);
    case 2:
      return OfSpace<uint16_t, Address, kLoad>(space);
    case 4:
      return OfSpace<uint32_t, Address, kLoad>(space);
    default:
      return OfSpace<uint64_t, Address, kLoad>(space);
  }
}

template <class D, class S>
D Same(S value) {
  return static_cast<D>(value);
}

template <bool kSigned, class S>
Handler Resize(size_t to) {
  using Kept = std::conditional_t<kSigned, std::make_signed_t<S>, S>;
  switch (to) {
    case 1:
      return Each<Same<uint8_t, Kept>>().run;
    case 2:
      return Each<Same<uint16_t, Kept>>().run;
    case 4:
      return Each<Same<uint32_t, Kept>>().run;
    default:
      return Each<Same<uint64_t, Kept>>().run;
  }
}
template <bool kSigned>
Handler Resize(size_t to, size_t from) {
  switch (from) {
    case 1:
      return Resize<kSigned, uint8_t>(to);
    case 2:
      return Resize<kSigned, uint16_t>(to);
    case 4:
      return Resize<kSigned, uint32_t>(to);
    default:
      return Resize<kSigned, uint64_t>(to);
  }
}

template <class E, class W>
void Pack(Warp& warp, const Instruction& instruction, uint32_t mask) {
  constexpr int kCount = sizeof(W) / sizeof(E);
  ForLanes(mask, [&](int lane) {
    W whole = 0;
    for (int i = 0; i < kCount; ++i) {
      whole |= static_cast<W>(warp.At<E>(instruction.operands[i + 1])[lane]) << (8 * sizeof(E) * i);
    }
    warp.At<W>(instruction.operands[0])[lane] = whole;
  });
}
template <class E, class W>
void Unpack(Warp& warp, const Instruction& instruction, uint32_t mask) {
  constexpr int kCount = sizeof(W) / sizeof(E);
  ForLanes(mask, [&](int lane) {
    const W whole = warp.At<W>(instruction.operands[kCount])[lane];
    for (int i = 0; i < kCount; ++i) {
      warp.At<E>(instruction.operands[i])[lane] = static_cast<E>(whole >> (8 * sizeof(E) * i));
    }
  });
}

}  // namespace

Handler LoadHandler(Space space, size_t bytes, bool wide_address) {
  return wide_address ? OfBytes<uint64_t, true>(space, bytes)
                      : OfBytes<uint32_t, true>(space, bytes);
}
Handler StoreHandler(Space space, size_t bytes, bool wide_address) {
  return wide_address ? OfBytes<uint64_t, false>(space, bytes)
                      : OfBytes<uint32_t, false>(space, bytes);
}
Handler ResizeHandler(size_t to, size_t from, bool is_signed) {
  return is_signed ? Resize<true>(to, from) : Resize<false>(to, from);
}
Handler PackHandler(size_t element, size_t whole) {
  if (element == 2 && whole == 4) return Pack<uint16_t, uint32_t>;
  if (element == 2 && whole == 8) return Pack<uint16_t, uint64_t>;
  if (element == 4 && whole == 8) return Pack<uint32_t, uint64_t>;
  return element == 1 && whole == 4 ? Pack<uint8_t, uint32_t> : nullptr;
}
Handler UnpackHandler(size_t element, size_t whole) {
  if (element == 2 && whole == 4) return Unpack<uint16_t, uint32_t>;
  if (element == 2 && whole == 8) return Unpack<uint16_t, uint64_t>;
  if (element == 4 && whole == 8) return Unpack<uint32_t, uint64_t>;
  return element == 1 && whole == 4 ? Unpack<uint8_t, uint32_t> : nullptr;
}

}  // namespace ptx
