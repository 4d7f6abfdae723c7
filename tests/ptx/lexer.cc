// Characters to tokens: words (with their dots, signs % and $, and colons in pairs), numbers,
// strings, punctuation.
#include <cctype>

#include "syntax.h"

namespace ptx::syntax {
namespace {

bool IsWord(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%';
}

// Past blanks and comments; counts lines.
size_t SkipBlanks(std::string_view text, size_t at, int* line) {
  while (at < text.size()) {
    if (text.compare(at, 2, "//") == 0) {
      at = std::min(text.find('\n', at), text.size());
    } else if (text.compare(at, 2, "/*") == 0) {
      const size_t end = text.find("*/", at);
      if (end == std::string_view::npos) Refuse(*line, "a comment does not end");
      for (; at < end + 2; ++at) *line += text[at] == '\n';
    } else if (std::isspace(static_cast<unsigned char>(text[at]))) {
      *line += text[at++] == '\n';
    } else {
      break;
    }
  }
  return at;
}

size_t EndOfWord(std::string_view text, size_t at) {
  while (at < text.size()) {
    if (IsWord(text[at]) || text[at] == '.') {
      ++at;
    } else if (text.compare(at, 2, "::") == 0) {
      at += 2;
    } else {
      break;
    }
  }
  return at;
}

}  // namespace

std::vector<Token> Tokens(std::string_view text) {
  std::vector<Token> tokens;
  int line = 1;
  for (size_t at = SkipBlanks(text, 0, &line); at < text.size(); at = SkipBlanks(text, at, &line)) {
    size_t end = at + 1;
    if (IsWord(text[at]) || text[at] == '.') {
      end = EndOfWord(text, at);
    } else if (text[at] == '"') {
      end = text.find('"', at + 1);
      if (end == std::string_view::npos) Refuse(line, "a string does not end");
      ++end;
    }
    tokens.push_back({text.substr(at, end - at), line});
    at = end;
  }
  return tokens;
}

}  // namespace ptx::syntax
