// Grammars: which tokens may come next, so that the text follows a schema, an expression, a
// grammar.
//
// A thin, owning layer over llguidance. A GrammarTokenizer is a model's vocabulary, made once; a
// Grammar is where one text stands within its rules. It knows bytes and tokens, no requests, no
// sampling.
#ifndef CUPOLA_SAMPLING_GRAMMAR_H_
#define CUPOLA_SAMPLING_GRAMMAR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/byte_merges.h"
#include "sampling/llguidance.h"
#include "sampling/token_mask.h"

namespace cupola {

// How a vocabulary writes text.
enum class Spelling : int32_t {
  kUnknown = 0,  // not by byte pairs: no token is ever forced
  kMerges,       // byte pairs over the whole text
  kWordMerges,   // byte pairs within words
};

class GrammarTokenizer {
 public:
  // tokens[id] is the text of a token; special tokens have their name after a byte 0xFF, ids
  // without a token are empty. Throws std::runtime_error.
  GrammarTokenizer(std::shared_ptr<const Llguidance> library,
                   const std::vector<std::string_view>& tokens, std::vector<uint32_t> eos_ids,
                   Spelling spelling);
  ~GrammarTokenizer();
  GrammarTokenizer(const GrammarTokenizer&) = delete;
  GrammarTokenizer& operator=(const GrammarTokenizer&) = delete;

  const Llguidance& library() const { return *library_; }
  const LlgTokenizer* handle() const { return handle_; }
  int32_t vocab_size() const { return vocab_size_; }
  bool IsEos(int32_t token) const;
  std::vector<int32_t> Encode(std::string_view text) const { return merges_.Encode(text); }

 private:
  const std::shared_ptr<const Llguidance> library_;
  const std::vector<uint32_t> eos_ids_;
  const int32_t vocab_size_;
  const ByteMerges merges_;
  LlgTokenizer* handle_ = nullptr;
};

// Not for two threads at once, but any thread may use it after another.
class Grammar {
 public:
  // kind: "json_schema", "regex" or "lark". Throws std::invalid_argument with llguidance's reason.
  // Bounded in time and memory by limits on the grammar's size, but may take a second.
  Grammar(std::shared_ptr<const GrammarTokenizer> tokenizer, const std::string& kind,
          const std::string& text);
  Grammar(Grammar&&) = default;
  Grammar& operator=(Grammar&&) = default;

  // The same place in the same rules, to go on from independently.
  Grammar Clone() const;

  // The tokens that may come next; at least one while the grammar is not stopped. False on error.
  bool FillMask(TokenMask* mask);
  // Moves on by a token. False if it is not allowed there, and on error.
  bool Accept(int32_t token);
  // The tokens that have to come next, whatever is sampled: at most `capacity`, possibly none.
  std::vector<int32_t> ForcedTokens(int32_t capacity);

  // The text so far is complete; it may still be allowed to go on.
  bool IsAccepting();
  // Nothing may follow.
  bool IsStopped() const;
  // What went wrong, after a method has failed.
  std::string error() const;

 private:
  struct Free {
    std::shared_ptr<const GrammarTokenizer> tokenizer;
    void operator()(LlgMatcher* matcher) const { tokenizer->library().free_matcher(matcher); }
  };
  using Matcher = std::unique_ptr<LlgMatcher, Free>;

  explicit Grammar(Matcher matcher) : matcher_(std::move(matcher)) {}
  const GrammarTokenizer& tokenizer() const { return *matcher_.get_deleter().tokenizer; }
  const Llguidance& library() const { return tokenizer().library(); }

  Matcher matcher_;
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_GRAMMAR_H_
