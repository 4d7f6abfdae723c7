#include "engine/step_times.h"

#include <vector>

namespace cupola {

namespace {

// Bounds as dashboards for other engines expect them, and finer ones below: a small model on a CPU
// takes two milliseconds for a token.
const std::vector<double> kWaits = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                    1,     2.5,   5,    10,    30,   60,  120,  300};
const std::vector<double> kGaps = {0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05,
                                   0.075, 0.1,   0.15,  0.2,   0.3,    0.5,  1,     2.5,   5};
const std::vector<double> kTokens = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};

double Seconds(int64_t from_ns, int64_t to_ns) {
  return static_cast<double>(to_ns - from_ns) * 1e-9;
}

}  // namespace

StepTimes::StepTimes()
    : histograms_{Histogram(kWaits), Histogram(kWaits), Histogram(kGaps), Histogram(kTokens)} {}

void StepTimes::Add(const StepPlan& plan, int64_t begin_ns, int64_t end_ns) {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t rows = 0;
  for (const PlannedSequence& sequence : plan.sequences) {
    rows += sequence.num_rows;
    AddSequence(sequence, begin_ns, end_ns);
  }
  histograms_.step_tokens.Add(static_cast<double>(rows));
}

void StepTimes::AddSequence(const PlannedSequence& sequence, int64_t begin_ns, int64_t end_ns) {
  Request* request = sequence.request;
  if (request->first_step_ns == 0) {
    request->first_step_ns = begin_ns;
    histograms_.queue_seconds.Add(Seconds(request->arrival_ns, begin_ns));
  }
  if (!sequence.samples) return;
  if (request->last_token_ns == 0) {
    histograms_.prefill_seconds.Add(Seconds(request->first_step_ns, end_ns));
  } else {
    histograms_.inter_token_seconds.Add(Seconds(request->last_token_ns, end_ns));
  }
  request->last_token_ns = end_ns;
}

StepHistograms StepTimes::Get() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return histograms_;
}

}  // namespace cupola
