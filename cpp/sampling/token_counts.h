// How often each token stands in a request's text so far, kept up to date token by token.
#ifndef CUPOLA_SAMPLING_TOKEN_COUNTS_H_
#define CUPOLA_SAMPLING_TOKEN_COUNTS_H_

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace cupola {

class TokenCounts {
 public:
  struct Entry {
    int32_t token;
    int32_t generated;  // times among the generated tokens; 0 if it is in the prompt only
  };

  // Takes in those of `tokens` that are new since the last call. The first `num_prompt` are the
  // prompt; those seen before must not have changed.
  void CatchUp(const std::vector<int32_t>& tokens, int32_t num_prompt) {
    for (; num_seen_ < tokens.size(); ++num_seen_) {
      const int32_t token = tokens[num_seen_];
      const auto [it, is_new] = index_.try_emplace(token, entries_.size());
      if (is_new) entries_.push_back({token, 0});
      entries_[it->second].generated += num_seen_ >= static_cast<size_t>(num_prompt);
    }
  }

  // Each distinct token once.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  size_t num_seen_ = 0;
  std::vector<Entry> entries_;
  std::unordered_map<int32_t, size_t> index_;  // of `entries_`
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_TOKEN_COUNTS_H_
