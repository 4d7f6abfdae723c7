// The C interface of llguidance, as far as Cupola uses it: exactly that of kLlguidanceVersion.
//
// The library comes with the Python wheel `llguidance`, which exports these functions beside its
// Python module. It is loaded when the first grammar is wanted, and never unloaded. Declarations
// are by the library's own llguidance.h (github.com/guidance-ai/llguidance, MIT license); layouts
// must not change between versions, so that another version is refused.
#ifndef CUPOLA_SAMPLING_LLGUIDANCE_H_
#define CUPOLA_SAMPLING_LLGUIDANCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace cupola {

constexpr char kLlguidanceVersion[] = "1.9.1";

struct LlgTokenizer;
struct LlgMatcher;

using LlgTokenizeFn = size_t (*)(const void* user_data, const uint8_t* bytes, size_t num_bytes,
                                 uint32_t* output, size_t capacity);

struct LlgTokenizerInit {
  size_t struct_size;
  uint32_t vocab_size;
  uint32_t eos;
  const uint32_t* token_lens;
  const uint8_t* token_bytes;
  const char* tokenizer_json;
  bool tokenize_assumes_string;
  LlgTokenizeFn tokenize;
  bool use_approximate_greedy_tokenize;
  const void* tokenize_user_data;
  const char* const* slices;
  const uint32_t* more_eos;
  uint32_t num_more_eos;
};

struct LlgParserLimits {
  size_t max_items_in_row;
  uint64_t initial_lexer_fuel;
  uint64_t step_lexer_fuel;
  size_t step_max_items;
  size_t max_lexer_states;
  size_t max_grammar_size;
  bool precompute_large_lexemes;
  bool verbose_errors;
};

struct LlgConstraintInit {
  const LlgTokenizer* tokenizer;
  uint32_t log_buffer_level;
  uint32_t log_stderr_level;
  bool ff_tokens_ok;
  bool backtrack_ok;
  LlgParserLimits limits;
};

// Its functions. All return 0 or a count, and -1 on failure, where they return a number.
struct Llguidance {
  const char* (*version)();
  LlgTokenizer* (*new_tokenizer)(const LlgTokenizerInit*, char* error, size_t error_size);
  void (*free_tokenizer)(LlgTokenizer*);
  void (*set_defaults)(LlgConstraintInit*, const LlgTokenizer*);
  LlgMatcher* (*new_matcher)(const LlgConstraintInit*, const char* kind, const char* text);
  LlgMatcher* (*clone_matcher)(const LlgMatcher*);
  void (*free_matcher)(LlgMatcher*);
  const char* (*error)(LlgMatcher*);
  int32_t (*compute_mask)(LlgMatcher*, uint32_t* mask, size_t num_bytes);
  int32_t (*consume_tokens)(LlgMatcher*, const uint32_t* tokens, size_t num_tokens);
  int32_t (*forced_tokens)(LlgMatcher*, uint32_t* output, size_t capacity);
  bool (*is_accepting)(LlgMatcher*);
  bool (*is_stopped)(const LlgMatcher*);
};

// Loads the library from the file `path`, for this caller alone to see. Throws std::runtime_error
// when it is missing, lacks a function, or is of another version.
std::shared_ptr<const Llguidance> LoadLlguidance(const std::string& path);

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_LLGUIDANCE_H_
