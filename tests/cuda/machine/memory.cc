#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace machine {

namespace {

constexpr size_t kAddresses = size_t{1} << 40;
constexpr size_t kPage = 4096;  // also CUDA's promise of 256, and a gap behind what is no multiple
constexpr int kPoison = 0xff;

size_t Pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// The allocation that an address lies in.
std::map<const char*, size_t>::const_iterator Find(const std::map<const char*, size_t>& all,
                                                   const char* address) {
  auto next = all.upper_bound(address);
  if (next == all.begin()) return all.end();
  --next;
  return address < next->first + next->second ? next : all.end();
}

}  // namespace

Memory::Memory(size_t bytes) : total_(bytes) {
  void* addresses =
      mmap(nullptr, kAddresses, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (addresses == MAP_FAILED) throw std::bad_alloc();
  begin_ = next_ = static_cast<char*>(addresses);
}

void* Memory::Allocate(size_t bytes) {
  const size_t pages = Pages(bytes);
  if (pages > available() || next_ + pages + kPage > begin_ + kAddresses) return nullptr;
  char* data = next_;
  next_ += pages + kPage;
  mprotect(data, pages, PROT_READ | PROT_WRITE);
  std::memset(data, kPoison, pages);
  mprotect(data, pages, PROT_NONE);
  used_ += pages;
  allocated_[data] = bytes;
  ranges_.Add(data, bytes);
  return data;
}

bool Memory::Free(void* data) {
  const auto found = allocated_.find(static_cast<char*>(data));
  if (found == allocated_.end()) return false;
  const size_t pages = Pages(found->second);
  mmap(data, pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  used_ -= pages;
  ranges_.Remove(data);
  allocated_.erase(found);
  return true;
}

void* Memory::AllocatePinned(size_t bytes) {
  void* data = std::aligned_alloc(kPage, Pages(bytes));
  if (data == nullptr) return nullptr;
  std::memset(data, kPoison, Pages(bytes));
  pinned_[static_cast<char*>(data)] = bytes;
  ranges_.Add(data, bytes);  // with unified addressing kernels may read it too
  return data;
}

bool Memory::FreePinned(void* data) {
  if (pinned_.erase(static_cast<char*>(data)) == 0) return false;
  ranges_.Remove(data);
  std::free(data);
  return true;
}

bool Memory::IsDevice(const void* data) const {
  return data >= begin_ && data < begin_ + kAddresses;
}

bool Memory::IsPinned(const void* data) const {
  return Find(pinned_, static_cast<const char*>(data)) != pinned_.end();
}

bool Memory::Holds(const void* data, size_t bytes) const {
  const auto* address = static_cast<const char*>(data);
  const auto found = Find(allocated_, address);
  return found != allocated_.end() && address + bytes <= found->first + found->second;
}

void Memory::Protect(bool open) {
  for (const auto& [data, bytes] : allocated_) {
    mprotect(const_cast<char*>(data), Pages(bytes), open ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
}

}  // namespace machine
