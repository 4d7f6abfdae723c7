// How much memory a batch will need at most, before it needs less: LightLLM's past-future estimate
// (arXiv 2507.10150), and the running estimate of output lengths that it builds on. In tokens; it
// knows no requests and no pages.
#ifndef CUPOLA_ENGINE_PEAK_H_
#define CUPOLA_ENGINE_PEAK_H_

#include <cstdint>
#include <vector>

namespace cupola {

// One running request: the tokens it holds, and how many steps of one token it has left.
struct Load {
  int64_t held;
  int64_t left;
};

// The most tokens that these loads will hold at once, if each grows by a token a step and gives all
// back after `left` steps: the largest sum over the moments at which one of them ends. Sorts
// `*loads` by what is left, longest first.
int64_t PredictPeak(std::vector<Load>* loads);

// What a request is expected to generate in all, learnt from those that ended.
class OutputEstimate {
 public:
  // A request ended by itself after so many tokens.
  void Record(int64_t length);
  // Tokens expected of a request that has generated `generated` and may generate at most
  // `max_tokens`.
  int64_t Predict(int64_t generated, int64_t max_tokens) const;

 private:
  static constexpr double kShortest = 64;
  static constexpr double kSlowest = 0.04;

  double mean_ = 2048;
  double weight_ = 0.5;  // of the next length; falls to kSlowest
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_PEAK_H_
