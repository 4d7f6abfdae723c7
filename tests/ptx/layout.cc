#include "layout.h"

#include <algorithm>
#include <cctype>
#include <cstring>

namespace ptx {
namespace {

size_t Aligned(size_t value, size_t to) { return (value + to - 1) / to * to; }

}  // namespace

Register Layout::Temporary(size_t bytes) {
  const size_t place = Aligned(kernel_.register_bytes, bytes ? 32 : 4);
  kernel_.register_bytes = place + (bytes ? bytes * kLanes : 4);
  return {static_cast<uint32_t>(place), bytes};
}

std::optional<Register> Layout::Find(const syntax::Function& function, const std::string& prefix,
                                     const std::string& name) {
  const auto known = registers_.find(prefix + name);
  if (known != registers_.end()) return known->second;
  auto declared = function.registers.find(name);
  if (declared == function.registers.end()) {
    size_t end = name.size();
    while (end > 0 && std::isdigit(static_cast<unsigned char>(name[end - 1]))) --end;
    declared = function.registers.find(name.substr(0, end) + "<");
    if (declared == function.registers.end()) return std::nullopt;
  }
  return registers_[prefix + name] = Temporary(syntax::BytesOf(declared->second));
}

std::optional<Register> Layout::FindSpecial(const std::string& name) {
  static const std::map<std::string, Special> kSpecials = {{"%tid.x", kTidX},
                                                           {"%tid.y", kTidY},
                                                           {"%tid.z", kTidZ},
                                                           {"%ntid.x", kNtidX},
                                                           {"%ntid.y", kNtidY},
                                                           {"%ntid.z", kNtidZ},
                                                           {"%ctaid.x", kCtaX},
                                                           {"%ctaid.y", kCtaY},
                                                           {"%ctaid.z", kCtaZ},
                                                           {"%nctaid.x", kNctaX},
                                                           {"%nctaid.y", kNctaY},
                                                           {"%nctaid.z", kNctaZ},
                                                           {"%laneid", kLane},
                                                           {"%warpid", kWarp},
                                                           {"%lanemask_eq", kMaskEq},
                                                           {"%lanemask_le", kMaskLe},
                                                           {"%lanemask_lt", kMaskLt},
                                                           {"%lanemask_ge", kMaskGe},
                                                           {"%lanemask_gt", kMaskGt},
                                                           {"%dynamic_smem_size", kDynamicShared},
                                                           {"%total_smem_size", kTotalShared},
                                                           {"%clock", kClock}};
  const auto found = kSpecials.find(name);
  if (found == kSpecials.end()) return std::nullopt;
  uint32_t& place = kernel_.specials[found->second];
  if (place == kNone) place = Temporary(4).place;
  return Register{place, 4};
}

Register Layout::Constant(uint64_t bits, size_t bytes) {
  if (bytes < 8) bits &= bytes ? (uint64_t{1} << (8 * bytes)) - 1 : 1;
  const auto known = constants_.find({bits, bytes});
  if (known != constants_.end()) return known->second;
  const Register found = Temporary(bytes);
  kernel_.constants.push_back({found.place, static_cast<uint8_t>(bytes), bits});
  return constants_[{bits, bytes}] = found;
}

Register Layout::Parameter(size_t offset, size_t bytes) {
  const auto known = parameters_.find({offset, bytes});
  if (known != parameters_.end()) return known->second;
  const Register found = Temporary(bytes);
  kernel_.parameter_uses.push_back({found.place, offset, bytes});
  return parameters_[{offset, bytes}] = found;
}

uint64_t Layout::Reserve(Space space, size_t bytes, size_t align) {
  size_t& used = space == Space::kShared ? kernel_.shared_bytes : kernel_.local_bytes;
  const size_t address = Aligned(used, align);
  used = address + bytes;
  return address;
}

std::map<std::string, Module::Variable> MakeVariables(const syntax::Module& module) {
  std::map<std::string, Module::Variable> variables;
  for (const syntax::Variable& variable : module.variables) {
    if (variable.space == "shared") continue;
    const size_t element = syntax::BytesOf(variable.type), count = variable.count;
    const size_t bytes = element * count, align = std::max<size_t>(variable.align, 16);
    auto storage = std::make_unique<uint8_t[]>(bytes + align);
    auto* data =
        reinterpret_cast<uint8_t*>(Aligned(reinterpret_cast<size_t>(storage.get()), align));
    if (variable.initial.size() > count)
      throw std::runtime_error(variable.name + " has more values than elements");
    for (size_t i = 0; i < variable.initial.size(); ++i) {
      const syntax::Operand& value = variable.initial[i];
      if (value.kind == syntax::Kind::kName)
        throw std::runtime_error(variable.name + " holds an address, which is not supported");
      std::memcpy(data + element * i, &value.bits, element);
    }
    variables[variable.name] = {std::move(storage), data, bytes};
  }
  return variables;
}

}  // namespace ptx
