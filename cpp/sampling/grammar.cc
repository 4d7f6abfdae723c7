#include "sampling/grammar.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace cupola {

namespace {

constexpr size_t kMaxMessage = 1024;

// What one grammar may cost. The first three bound its compilation, the others every mask: at the
// speeds that llguidance states, a mask takes 10 ms at the very most.
void SetLimits(LlgParserLimits* limits) {
  limits->max_grammar_size = 200000;
  limits->initial_lexer_fuel = 1000000;
  limits->max_lexer_states = 50000;
  limits->max_items_in_row = 2000;
  limits->step_lexer_fuel = 20000;
  limits->step_max_items = 50000;
  limits->verbose_errors = false;  // they would show the whole grammar and the text so far
}

size_t Tokenize(const void* merges, const uint8_t* bytes, size_t num_bytes, uint32_t* output,
                size_t capacity) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), num_bytes);
  const std::vector<int32_t> ids = static_cast<const ByteMerges*>(merges)->Encode(text);
  std::copy_n(ids.begin(), std::min(ids.size(), capacity), output);
  return ids.size();
}

// Special tokens have no text, and their names must not be found in one.
std::vector<std::string_view> WithoutSpecial(std::vector<std::string_view> tokens) {
  for (std::string_view& token : tokens) {
    if (!token.empty() && token[0] == '\xFF') token = {};
  }
  return tokens;
}

}  // namespace

GrammarTokenizer::GrammarTokenizer(std::shared_ptr<const Llguidance> library,
                                   const std::vector<std::string_view>& tokens,
                                   std::vector<uint32_t> eos_ids, Spelling spelling)
    : library_(std::move(library)),
      eos_ids_(std::move(eos_ids)),
      vocab_size_(static_cast<int32_t>(tokens.size())),
      merges_(WithoutSpecial(tokens), spelling == Spelling::kWordMerges) {
  if (eos_ids_.empty()) throw std::runtime_error("the model has no end-of-sequence token");
  std::vector<uint32_t> lens;
  std::string bytes;
  for (std::string_view token : tokens) {
    lens.push_back(static_cast<uint32_t>(token.size()));
    bytes.append(token);
  }
  LlgTokenizerInit init{};
  init.struct_size = sizeof(init);
  init.vocab_size = static_cast<uint32_t>(vocab_size_);
  init.eos = eos_ids_[0];
  init.more_eos = eos_ids_.data() + 1;
  init.num_more_eos = static_cast<uint32_t>(eos_ids_.size() - 1);
  init.token_lens = lens.data();
  init.token_bytes = reinterpret_cast<const uint8_t*>(bytes.data());
  init.tokenize = spelling == Spelling::kUnknown ? nullptr : Tokenize;
  init.use_approximate_greedy_tokenize = spelling == Spelling::kUnknown;
  init.tokenize_user_data = &merges_;
  char message[kMaxMessage] = {};
  handle_ = library_->new_tokenizer(&init, message, sizeof(message));
  if (handle_ == nullptr) throw std::runtime_error(message);
}

GrammarTokenizer::~GrammarTokenizer() { library_->free_tokenizer(handle_); }

bool GrammarTokenizer::IsEos(int32_t token) const {
  return std::find(eos_ids_.begin(), eos_ids_.end(), static_cast<uint32_t>(token)) !=
         eos_ids_.end();
}

Grammar::Grammar(std::shared_ptr<const GrammarTokenizer> tokenizer, const std::string& kind,
                 const std::string& text)
    : matcher_(nullptr, Free{tokenizer}) {
  LlgConstraintInit init{};
  library().set_defaults(&init, tokenizer->handle());
  SetLimits(&init.limits);
  init.log_buffer_level = 0;
  init.log_stderr_level = 0;
  matcher_.reset(library().new_matcher(&init, kind.c_str(), text.c_str()));
  // A first mask shows what is wrong with a grammar that nothing can follow, and warms the caches
  // that every clone begins with.
  TokenMask mask;
  if (!FillMask(&mask)) throw std::invalid_argument(error());
}

Grammar Grammar::Clone() const {
  return Grammar(Matcher(library().clone_matcher(matcher_.get()), matcher_.get_deleter()));
}

bool Grammar::FillMask(TokenMask* mask) {
  mask->resize((static_cast<size_t>(tokenizer().vocab_size()) + kMaskBits - 1) / kMaskBits);
  return library().compute_mask(matcher_.get(), mask->data(), mask->size() * sizeof(uint32_t)) == 0;
}

bool Grammar::Accept(int32_t token) {
  const auto id = static_cast<uint32_t>(token);
  return library().consume_tokens(matcher_.get(), &id, 1) == 0;
}

std::vector<int32_t> Grammar::ForcedTokens(int32_t capacity) {
  std::vector<uint32_t> ids(static_cast<size_t>(std::max(capacity, 0)));
  const int32_t count = library().forced_tokens(matcher_.get(), ids.data(), ids.size());
  return {ids.begin(), ids.begin() + std::max(count, 0)};
}

bool Grammar::IsAccepting() { return library().is_accepting(matcher_.get()); }

bool Grammar::IsStopped() const { return library().is_stopped(matcher_.get()); }

std::string Grammar::error() const {
  const char* message = library().error(matcher_.get());
  return message == nullptr ? "" : message;
}

}  // namespace cupola
