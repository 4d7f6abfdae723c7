#include "ffi/packed_request.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

class RequestReader {
 public:
  explicit RequestReader(const ffi::Bytes& bytes)
      : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  int64_t Word() { return Read<int64_t>(); }
  int32_t Int() { return static_cast<int32_t>(Read<int64_t>()); }
  bool Bool() { return Read<int64_t>() != 0; }
  float Float() { return static_cast<float>(Read<double>()); }
  std::vector<int32_t> Ints() { return ReadMany<int32_t>(); }
  std::vector<float> Floats() { return ReadMany<float>(); }
  std::vector<std::vector<int32_t>> Lists() {
    std::vector<std::vector<int32_t>> lists(static_cast<size_t>(Read<int64_t>()));
    for (std::vector<int32_t>& list : lists) list = Ints();
    return lists;
  }

  ThinkingLimit Thinking() {
    const std::vector<int32_t> open = Ints();
    const int32_t close = Int();
    const int32_t budget = Int();
    return ThinkingLimit(open, close, budget, Bool());
  }

  void CheckEnd() const {
    if (at_ != end_) throw std::logic_error("request: there is more in it than was read");
  }

 private:
  template <typename T>
  T Read() {
    T value;
    Copy(&value, 1);
    return value;
  }

  template <typename T>
  std::vector<T> ReadMany() {
    std::vector<T> values(static_cast<size_t>(Read<int64_t>()));
    Copy(values.data(), values.size());
    return values;
  }

  template <typename T>
  void Copy(T* values, size_t count) {
    if (count == 0) return;  // memcpy takes no null pointer, not even for nothing
    const size_t size = count * sizeof(T);
    if (static_cast<size_t>(end_ - at_) < size) throw std::logic_error("request: it is cut off");
    std::memcpy(values, at_, size);
    at_ += size;
  }

  const char* at_;
  const char* const end_;
};

}  // namespace

std::unique_ptr<Request> ReadRequest(const ffi::Bytes& packed) {
  RequestReader reader(packed);
  auto request = std::make_unique<Request>();
  request->id = reader.Word();
  request->priority = reader.Int();
  request->tokens = reader.Ints();
  request->num_prompt = request->num_tokens();
  request->stop_ids = reader.Ints();
  request->max_tokens = reader.Int();
  request->sampling.min_tokens = reader.Int();
  request->sampling.temperature = reader.Float();
  request->sampling.top_k = reader.Int();
  request->sampling.top_p = reader.Float();
  request->sampling.min_p = reader.Float();
  request->sampling.seed = static_cast<uint64_t>(reader.Word());
  request->sampling.presence_penalty = reader.Float();
  request->sampling.frequency_penalty = reader.Float();
  request->sampling.repetition_penalty = reader.Float();
  request->sampling.bias_ids = reader.Ints();
  request->sampling.bias_values = reader.Floats();
  request->sampling.allowed_ids = reader.Ints();
  request->sampling.bad_words = reader.Lists();
  request->num_logprobs = reader.Int();
  request->num_prompt_logprobs = reader.Int();
  request->logprobs_from = reader.Int();
  request->cache_seed = static_cast<uint64_t>(reader.Word());
  request->pin_prefix = reader.Bool();
  request->deadline_ns = reader.Word();
  request->thinking = reader.Thinking();
  reader.CheckEnd();
  return request;
}

}  // namespace cupola
