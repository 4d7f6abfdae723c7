// Byte-pair encoding by the vocabulary alone: how a model's tokenizer would write a text.
//
// Text that a grammar forces has to become tokens on the engine's threads, where neither Python nor
// its tokenizer can be called. Vocabularies of byte-pair encodings number their tokens in the order
// of the merges that made them, so merging the neighbours whose union has the lowest id first, as
// tiktoken does, is the tokenizer's own rule. What the pre-tokenizer does is only approximated:
// a token never crosses the border of a word in training, so that vocabularies hold no tokens that
// would, and one cut before the space that begins a word is enough for nearly all texts.
#ifndef CUPOLA_SAMPLING_BYTE_MERGES_H_
#define CUPOLA_SAMPLING_BYTE_MERGES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace cupola {

class ByteMerges {
 public:
  // tokens[id] is the text of a token in bytes, empty for those that no text contains. `words`: a
  // space begins a word, as in all byte-level vocabularies.
  ByteMerges(const std::vector<std::string_view>& tokens, bool words);

  // The ids of a text; bytes that no token has are left out.
  std::vector<int32_t> Encode(std::string_view text) const;

 private:
  // Where the word at `begin` ends: before a space that the vocabulary joins with what follows it.
  size_t WordEnd(std::string_view text, size_t begin) const;
  void EncodeWord(std::string_view word, std::vector<int32_t>* ids) const;
  int32_t Find(std::string_view bytes) const;

  std::string storage_;  // what the views point into
  std::unordered_map<std::string_view, int32_t> ids_;
  const bool words_;
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_BYTE_MERGES_H_
