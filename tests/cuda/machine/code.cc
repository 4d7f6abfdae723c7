#include "code.h"

#include <elf.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>

namespace machine {

namespace {

constexpr uint32_t kContainer = 0xBA55ED50;
constexpr uint16_t kPtx = 1, kMachineCode = 2;
constexpr uint64_t kCompressed = 0xf000;  // flags: any of the methods
constexpr uint8_t kRegisters = 0x2f;      // an attribute of .nv.info: symbol, registers a thread
constexpr uint8_t kLong = 0x04;           // attributes whose two bytes are the size of what follows

// Of an entry of a container, as far as it is looked at.
struct Entry {
  uint16_t kind, version;
  uint32_t header_bytes;
  uint64_t bytes;
  uint32_t compressed_bytes, options;
  uint16_t minor, major;
  uint32_t architecture;
  uint32_t name, name_bytes;
  uint64_t flags;
};

template <typename Type>
Type Read(const char* at) {
  Type value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Registers a thread of every kernel, from .nv.info.
void FindRegisters(std::string_view elf, std::map<std::string, Bounds>* kernels) {
  const auto header = Read<Elf64_Ehdr>(elf.data());
  const auto section = [&](size_t i) {
    return Read<Elf64_Shdr>(elf.data() + header.e_shoff + i * header.e_shentsize);
  };
  const Elf64_Shdr names = section(header.e_shstrndx);
  Elf64_Shdr info{}, symbols{};
  for (size_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr one = section(i);
    if (std::string_view(elf.data() + names.sh_offset + one.sh_name) == ".nv.info") info = one;
    if (one.sh_type == SHT_SYMTAB) symbols = one;
  }
  const char* strings = elf.data() + section(symbols.sh_link).sh_offset;
  const char* at = elf.data() + info.sh_offset;
  const char* end = at + info.sh_size;
  while (at < end) {
    const auto format = Read<uint8_t>(at), kind = Read<uint8_t>(at + 1);
    const auto size = Read<uint16_t>(at + 2);
    at += 4;
    if (format != kLong) continue;
    if (kind == kRegisters) {
      const auto symbol =
          Read<Elf64_Sym>(elf.data() + symbols.sh_offset + Read<uint32_t>(at) * sizeof(Elf64_Sym));
      const auto kernel = kernels->find(strings + symbol.st_name);
      if (kernel != kernels->end()) kernel->second.registers = Read<int>(at + 4);
    }
    at += size;
  }
}

// The number behind `mark`; 0 where there is none.
int NumberBehind(std::string_view text, std::string_view mark) {
  const size_t at = text.find(mark);
  return at == text.npos ? 0 : std::atoi(text.data() + at + mark.size());
}

// Bytes of the arrays `.shared .align A .bB NAME[N]` of a text, of which `used` has the name.
size_t SharedBytes(std::string_view text, std::string_view used) {
  constexpr std::string_view kShared = ".shared .align ";
  size_t bytes = 0;
  for (size_t at = text.find(kShared); at != text.npos; at = text.find(kShared, at + 1)) {
    const std::string_view line = text.substr(at, text.find('\n', at) - at);
    const size_t bracket = line.find('['), name = line.rfind(' ', bracket) + 1;
    if (used.find(line.substr(name, bracket - name)) == used.npos) continue;
    bytes += static_cast<size_t>(NumberBehind(line, "[") * (NumberBehind(line, " .b") / 8));
  }
  return bytes;
}

// Where the brace at `open` is closed.
size_t Closing(std::string_view text, size_t open) {
  size_t depth = 0;
  for (size_t at = open; at < text.size(); ++at) {
    if (text[at] == '{') ++depth;
    if (text[at] == '}' && --depth == 0) return at;
  }
  return text.size();
}

// What every kernel declares. Arrays outside of all of them belong to those that name them; those
// whose size the launch decides count as none.
std::map<std::string, Bounds> BoundsIn(std::string_view text, const ptx::Program& program) {
  constexpr std::string_view kEntry = ".entry ";
  std::map<std::string, Bounds> kernels;
  for (const std::string& name : program.Entries()) {
    const size_t begin = text.find(std::string(kEntry) + name + "(");
    const size_t open = text.find('{', begin);
    const std::string_view head = text.substr(begin, open - begin);
    const std::string_view body = text.substr(open, Closing(text, open) - open);
    kernels[name] = {SharedBytes(text.substr(0, begin), body) + SharedBytes(body, body),
                     NumberBehind(head, ".maxntid "), 0};
  }
  return kernels;
}

// The PTX and the machine code in a container that the device could take.
struct Content {
  std::string_view ptx, machine_code;
  bool compressed = false;
};

Content Open(const char* image, int architecture) {
  Content content;
  const char* at = image + Read<uint16_t>(image + 6);
  const char* end = at + Read<uint64_t>(image + 8);
  while (at < end) {
    const auto entry = Read<Entry>(at);
    const std::string_view data(at + entry.header_bytes, entry.bytes);
    at += entry.header_bytes + entry.bytes;
    const int made_for = static_cast<int>(entry.architecture);
    if (entry.kind == kPtx && made_for <= architecture) {
      content.compressed = (entry.flags & kCompressed) != 0;
      content.ptx = data.substr(0, data.find('\0'));
    }
    const bool same_generation = made_for / 10 == architecture / 10 && made_for <= architecture;
    if (entry.kind == kMachineCode && same_generation) content.machine_code = data;
  }
  return content;
}

}  // namespace

CUresult Load(const void* image, int architecture, Code* code, std::string* why) {
  const auto* bytes = static_cast<const char*>(image);
  Content content;
  if (Read<uint32_t>(bytes) == kContainer) {
    content = Open(bytes, architecture);
    if (content.machine_code.empty() && content.ptx.empty()) {
      *why = "no code for sm_" + std::to_string(architecture);
      return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
  } else {
    content.ptx = bytes;
  }
  if (content.ptx.empty() || content.compressed) {
    *why = content.compressed ? "its PTX is compressed" : "machine code alone is not interpreted";
    return CUDA_ERROR_INVALID_IMAGE;
  }
  try {
    code->program = ptx::Parse(content.ptx);
    code->kernels = BoundsIn(content.ptx, *code->program);
  } catch (const std::exception& error) {
    *why = error.what();
    return CUDA_ERROR_INVALID_PTX;
  }
  if (!content.machine_code.empty()) FindRegisters(content.machine_code, &code->kernels);
  return CUDA_SUCCESS;
}

}  // namespace machine
