#include "sampling/byte_merges.h"

#include <algorithm>
#include <limits>

namespace cupola {

namespace {

constexpr int32_t kNone = std::numeric_limits<int32_t>::max();
// Merging takes time that grows with the square of a word's length; no real word is longer.
constexpr size_t kMaxWord = 256;

// Length of the character that begins with this byte, in UTF-8.
size_t CharacterLength(unsigned char first) {
  if (first >= 0xF0) return 4;
  if (first >= 0xE0) return 3;
  return first >= 0xC0 ? 2 : 1;
}

}  // namespace

ByteMerges::ByteMerges(const std::vector<std::string_view>& tokens, bool words) : words_(words) {
  size_t size = 0;
  for (std::string_view token : tokens) size += token.size();
  storage_.reserve(size);
  ids_.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty()) continue;
    const size_t begin = storage_.size();
    storage_.append(tokens[id]);
    // Of two tokens with the same bytes the later one is the text's, the earlier a mere byte.
    ids_[std::string_view(storage_).substr(begin)] = static_cast<int32_t>(id);
  }
}

std::vector<int32_t> ByteMerges::Encode(std::string_view text) const {
  std::vector<int32_t> ids;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = WordEnd(text, begin);
    EncodeWord(text.substr(begin, end - begin), &ids);
    begin = end;
  }
  return ids;
}

size_t ByteMerges::WordEnd(std::string_view text, size_t begin) const {
  const size_t limit = std::min(text.size(), begin + kMaxWord);
  for (size_t i = begin + 1; words_ && i + 1 < limit; ++i) {
    if (text[i] == ' ' && text[i + 1] != ' ' && Find(text.substr(i, 2)) != kNone) return i;
  }
  return limit;
}

void ByteMerges::EncodeWord(std::string_view word, std::vector<int32_t>* ids) const {
  std::vector<std::string_view> parts;
  for (size_t i = 0; i < word.size(); i += parts.back().size()) {
    const std::string_view character = word.substr(i, CharacterLength(word[i]));
    parts.push_back(Find(character) != kNone ? character : word.substr(i, 1));
  }
  while (parts.size() > 1) {
    size_t best = 0;
    int32_t best_id = kNone;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const int32_t id = Find({parts[i].data(), parts[i].size() + parts[i + 1].size()});
      if (id < best_id) best = i, best_id = id;
    }
    if (best_id == kNone) break;
    parts[best] = {parts[best].data(), parts[best].size() + parts[best + 1].size()};
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  for (std::string_view part : parts) {
    const int32_t id = Find(part);
    if (id != kNone) ids->push_back(id);
  }
}

int32_t ByteMerges::Find(std::string_view bytes) const {
  const auto found = ids_.find(bytes);
  return found == ids_.end() ? kNone : found->second;
}

}  // namespace cupola
