#include "engine/scheduler.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace cupola {

namespace {

// Rows of the prompt that one step scores at most: a row of logits is large, and a step that scores
// many would keep those waiting that generate.
constexpr int32_t kMaxScoredRows = 64;

}  // namespace

Scheduler::Scheduler(const Limits& limits) : limits_(limits), pool_(limits.num_pages) {}

bool Scheduler::CanEverFit(const Limits& limits, int64_t num_prompt, int64_t max_tokens) {
  if (num_prompt + max_tokens > limits.max_context) return false;
  const int64_t cached = num_prompt + std::max<int64_t>(max_tokens, 1) - 1;
  const int32_t pages = limits.PagesFor(static_cast<int32_t>(cached));
  const Supply everything{limits.num_pages, limits.num_pages, 0};
  return Judge(Demand{pages, pages}, everything) != Fit::kNever;
}

void Scheduler::Add(std::unique_ptr<Request> request) {
  Request* added = request.get();
  added->arrival = num_arrivals_++;
  if (!requests_.emplace(added->id, std::move(request)).second) {
    throw std::logic_error("scheduler: request id " + std::to_string(added->id) + " is in use");
  }
  waiting_.insert(added);
}

void Scheduler::Abort(int64_t id, DeltaBatch* out) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  out->AddEnd(id, FinishReason::kAbort);
  Remove(it->second.get(), FinishReason::kAbort);
}

// The story of a step: those that generate come first, then those that still read their prompt, and
// what is left of the budget goes to those that wait. A request that is preempted here cannot come
// back in the same step: whoever took one of its pages left one too few.
const StepPlan& Scheduler::Schedule() {
  plan_.sequences.clear();
  plan_.budget_left = limits_.max_step_tokens;
  plan_.logit_rows_left = limits_.max_logit_rows;
  plan_.scored_left = kMaxScoredRows;
  PlanDecodes();
  PlanPrefills();
  AdmitWaiting();
  return plan_;
}

void Scheduler::PlanDecodes() {
  const auto decodes = [](const Request* request) { return request->decoding(); };
  auto num_left = static_cast<int32_t>(std::count_if(running_.begin(), running_.end(), decodes));
  // Victims are taken from the end of `running_`, so nobody planned before `i` is ever one.
  for (size_t i = 0; i < running_.size(); ++i) {
    Request* request = running_[i];
    if (!request->decoding()) continue;
    // Tokens that a grammar forced must leave a row for everybody behind.
    const int32_t budget = plan_.budget_left - --num_left;
    if (GrowOrPreempt(request)) PlanRows(request, budget);
  }
}

void Scheduler::PlanPrefills() {
  for (Request* request : running_) {
    if (plan_.budget_left == 0) return;
    if (!request->decoding()) PlanRows(request, plan_.budget_left);
  }
}

void Scheduler::AdmitWaiting() {
  while (plan_.budget_left > 0 && CanAdmitHead()) {
    Request* request = *waiting_.begin();
    Admit(request);
    PlanRows(request, plan_.budget_left);
  }
}

void Scheduler::PlanRows(Request* request, int32_t budget) {
  PlannedSequence sequence{request, std::min(request->num_uncomputed(), budget), false};
  PlanScores(&sequence);
  if (sequence.num_rows == request->num_uncomputed() && request->max_tokens > 0) {
    // Without a row of logits for it, the last token waits for the next step.
    sequence.samples = plan_.logit_rows_left > 0;
    sequence.num_rows -= !sequence.samples;
    plan_.logit_rows_left -= sequence.samples;
  }
  if (sequence.num_rows == 0) return;
  plan_.budget_left -= sequence.num_rows;
  plan_.sequences.push_back(sequence);
}

// Finds the rows that a token of the prompt follows whose log-probability is wanted, and cuts the
// sequence where the step has no more rows of logits for them.
void Scheduler::PlanScores(PlannedSequence* sequence) {
  const Request& request = *sequence->request;
  const int32_t begin = request.num_computed;
  const int32_t first = std::max(begin, request.logprobs_from - 1);
  const int32_t end = std::min(begin + sequence->num_rows, request.num_prompt - 1);
  if (first >= end) return;
  sequence->first_scored = first - begin;
  sequence->num_scored = std::min({end - first, plan_.scored_left, plan_.logit_rows_left});
  if (sequence->num_scored < end - first) {
    sequence->num_rows = sequence->first_scored + sequence->num_scored;
  }
  plan_.scored_left -= sequence->num_scored;
  plan_.logit_rows_left -= sequence->num_scored;
}

// Gives a decoding request the page that its next token needs, if it needs one. False if that took
// the pages of `request` itself.
bool Scheduler::GrowOrPreempt(Request* request) {
  const Demand demand = DemandOf(*request);
  while (Judge(demand, Supply{pool_.num_total(), pool_.num_free(), 0}) != Fit::kNow) {
    Request* victim = running_.back();
    Preempt(victim);
    if (victim == request) return false;
  }
  pool_.Take(demand.pages_now, &request->pages);
  return true;
}

bool Scheduler::CanAdmitHead() const {
  if (waiting_.empty()) return false;
  if (static_cast<int32_t>(running_.size()) >= limits_.max_running()) return false;
  return Judge(DemandOf(**waiting_.begin()), SupplyForAdmission()) == Fit::kNow;
}

// All pages of the tokens so far are taken at once, so that only decodes ever grow.
void Scheduler::Admit(Request* request) {
  pool_.Take(DemandOf(*request).pages_now, &request->pages);
  waiting_.erase(request);
  running_.insert(std::upper_bound(running_.begin(), running_.end(), request, RankOrder()),
                  request);
  request->running = true;
  request->num_admitted = request->num_tokens();
  if (!request->started) counters_.prompt_tokens += request->num_prompt;
  request->started = true;
}

void Scheduler::Preempt(Request* request) {
  pool_.Give(&request->pages);
  request->num_computed = 0;
  request->running = false;
  running_.erase(std::find(running_.begin(), running_.end(), request));
  waiting_.insert(request);
  ++counters_.preemptions;
}

void Scheduler::Commit(const std::vector<Sampled>& sampled, DeltaBatch* out) {
  if (sampled.size() != plan_.sequences.size()) {
    throw std::logic_error("scheduler: " + std::to_string(sampled.size()) + " results for " +
                           std::to_string(plan_.sequences.size()) + " planned sequences");
  }
  for (size_t i = 0; i < sampled.size(); ++i) Book(plan_.sequences[i], sampled[i], out);
  plan_.sequences.clear();
}

void Scheduler::Book(const PlannedSequence& sequence, const Sampled& sampled, DeltaBatch* out) {
  Request* request = sequence.request;
  request->num_computed += sequence.num_rows;
  if (!sampled.error.empty()) {
    out->AddError(request->id, sampled.error);
    Remove(request, FinishReason::kError);
    return;
  }
  if (sequence.num_scored > 0) {
    request->logprobs_from += sequence.num_scored;
    out->AddScores(request->id, sequence.num_scored, sampled.prompt_logprobs);
  }
  if (sequence.samples) {
    Accept(request, sampled, out);
  } else if (request->max_tokens == 0 && request->num_uncomputed() == 0) {
    out->AddEnd(request->id, FinishReason::kLength);
    Remove(request, FinishReason::kLength);
  }
}

void Scheduler::Accept(Request* request, const Sampled& sampled, DeltaBatch* out) {
  const bool alone = sampled.forced.empty();
  if (!Append(request, sampled.token, sampled.completes && alone, sampled.logprobs, out)) return;
  for (size_t i = 0; i < sampled.forced.size(); ++i) {
    const bool completes = sampled.completes && i + 1 == sampled.forced.size();
    if (!Append(request, sampled.forced[i], completes, {}, out)) return;
  }
}

// Adds a token, which may complete what was asked for. False if the request has ended with it.
bool Scheduler::Append(Request* request, int32_t token, bool completes,
                       const TokenLogprobs& logprobs, DeltaBatch* out) {
  ++counters_.generated_tokens;
  if (request->IsStopId(token)) {
    out->AddEnd(request->id, FinishReason::kStop);
    Remove(request, FinishReason::kStop);
    return false;
  }
  request->tokens.push_back(token);
  const bool last = request->num_generated() >= request->max_tokens;
  const FinishReason finish = completes ? FinishReason::kStop
                              : last    ? FinishReason::kLength
                                        : FinishReason::kNone;
  out->AddToken(request->id, token, finish, logprobs);
  if (finish != FinishReason::kNone) Remove(request, finish);
  return finish == FinishReason::kNone;
}

void Scheduler::Remove(Request* request, FinishReason reason) {
  pool_.Give(&request->pages);
  if (request->running) {
    running_.erase(std::find(running_.begin(), running_.end(), request));
  } else {
    waiting_.erase(request);
  }
  switch (reason) {
    case FinishReason::kAbort:
      ++counters_.aborted;
      break;
    case FinishReason::kError:
      ++counters_.failed;
      break;
    default:
      ++counters_.finished;
  }
  const int64_t id = request->id;  // a copy: the request dies in erase
  requests_.erase(id);
}

void Scheduler::FailStep(const std::string& message, DeltaBatch* out) {
  if (plan_.empty()) {
    EndAll(FinishReason::kError, message, out);
    return;
  }
  // The pool is emptied first and the books are made to agree with it: whatever state the failure
  // left behind, no page can be lost or given back twice.
  pool_.Reset();
  for (Request* request : running_) {
    request->pages.clear();
    request->num_computed = 0;
    request->running = false;
    waiting_.insert(request);
  }
  running_.clear();
  for (const PlannedSequence& sequence : plan_.sequences) {
    out->AddError(sequence.request->id, message);
    Remove(sequence.request, FinishReason::kError);
  }
  plan_.sequences.clear();
}

void Scheduler::EndAll(FinishReason reason, const std::string& message, DeltaBatch* out) {
  pool_.Reset();
  for (const auto& [id, request] : requests_) {
    if (reason == FinishReason::kError) {
      out->AddError(id, message);
      ++counters_.failed;
    } else {
      out->AddEnd(id, reason);
      ++counters_.aborted;
    }
  }
  running_.clear();
  waiting_.clear();
  plan_.sequences.clear();
  requests_.clear();
}

void Scheduler::CheckIntegrity() const {
  std::vector<int32_t> held;
  for (const Request* request : running_) {
    held.insert(held.end(), request->pages.begin(), request->pages.end());
    if (static_cast<int32_t>(request->pages.size()) < limits_.PagesFor(request->num_computed)) {
      throw std::logic_error("scheduler: request " + std::to_string(request->id) + " has " +
                             std::to_string(request->pages.size()) + " pages for " +
                             std::to_string(request->num_computed) + " tokens");
    }
  }
  for (const Request* request : waiting_) {
    if (!request->pages.empty()) {
      throw std::logic_error("scheduler: request " + std::to_string(request->id) +
                             " waits with pages");
    }
  }
  if (running_.size() + waiting_.size() != requests_.size()) {
    throw std::logic_error("scheduler: " + std::to_string(running_.size()) + " running + " +
                           std::to_string(waiting_.size()) +
                           " waiting != " + std::to_string(requests_.size()) + " requests");
  }
  pool_.CheckHeld(held);
}

Demand Scheduler::DemandOf(const Request& request) const {
  const int32_t held = static_cast<int32_t>(request.pages.size());
  return {limits_.PagesFor(request.num_tokens()) - held,
          limits_.PagesFor(request.max_cached_tokens())};
}

// One page of growth is kept for every running request that will grow. Without it a newcomer would
// often be preempted within a page's worth of steps, and its prefill would be in vain.
Supply Scheduler::SupplyForAdmission() const {
  int32_t promised = 0;
  for (const Request* request : running_) {
    const int32_t held = static_cast<int32_t>(request->pages.size());
    if (held < limits_.PagesFor(request->max_cached_tokens())) ++promised;
  }
  return {pool_.num_total(), pool_.num_free(), promised};
}

}  // namespace cupola
