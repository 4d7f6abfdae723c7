// How many tokens of reasoning a model may write before it has to end it.
//
// Reasoning begins with the sequence of tokens `open`, or has begun in the prompt, and ends with
// the token `close`. Each of its tokens costs one of the budget, which all of a reply's reasoning
// shares; when there is none left, `close` is due. It knows token ids, no text.
#ifndef CUPOLA_SAMPLING_THINKING_LIMIT_H_
#define CUPOLA_SAMPLING_THINKING_LIMIT_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "sampling/sampling_params.h"

namespace cupola {

class ThinkingLimit {
 public:
  // No limit.
  ThinkingLimit() = default;
  ThinkingLimit(std::vector<int32_t> open, int32_t close, int32_t budget, bool begun)
      : open_(std::move(open)), close_(close), left_(budget), inside_(begun) {}

  // The token that has to come next; kNoToken: any.
  int32_t due() const { return inside_ && left_ <= 0 ? close_ : kNoToken; }

  // Moves on by a token that was generated.
  void Accept(int32_t token) {
    if (inside_) {
      inside_ = token != close_;
      if (inside_) --left_;
    } else if (!open_.empty()) {
      // Enough for delimiters, whose first token stands nowhere else in them.
      if (token != open_[num_opened_]) num_opened_ = 0;
      if (token == open_[num_opened_]) ++num_opened_;
      inside_ = num_opened_ == open_.size();
      if (inside_) num_opened_ = 0;
    }
  }

 private:
  std::vector<int32_t> open_;
  int32_t close_ = kNoToken;
  int32_t left_ = 0;
  bool inside_ = false;
  size_t num_opened_ = 0;  // tokens of `open_` that the latest ones are
};

}  // namespace cupola

#endif  // CUPOLA_SAMPLING_THINKING_LIMIT_H_
