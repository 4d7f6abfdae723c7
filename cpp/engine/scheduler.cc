#include "engine/scheduler.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace cupola {

namespace {

// Rows of the prompt that one step scores at most: a row of logits is large, and a step that scores
// many would keep those waiting that generate.
constexpr int32_t kMaxScoredRows = 64;

// A request that does not fit lets so many younger ones pass; then they wait with it.
constexpr int32_t kMaxPassed = 32;
// Requests that do not fit, after which a step looks for no more that do.
constexpr size_t kMaxBlocked = 4;

}  // namespace

Scheduler::Scheduler(const Limits& limits)
    : limits_(limits), ledger_(limits), admission_(limits, &ledger_), pace_(limits.prefill_rows) {}

bool Scheduler::CanEverFit(const Limits& limits, int64_t num_prompt, int64_t max_tokens) {
  if (num_prompt + max_tokens > limits.max_context) return false;
  const int64_t cached = num_prompt + std::max<int64_t>(max_tokens, 1) - 1;
  const int32_t pages = limits.PagesFor(static_cast<int32_t>(cached));
  const Supply everything{limits.num_pages, limits.num_pages};
  return Judge(Demand{pages, pages, pages}, everything) == Fit::kNow;
}

void Scheduler::Add(std::unique_ptr<Request> request) {
  Request* added = request.get();
  added->arrival = num_arrivals_++;
  if (!requests_.emplace(added->id, std::move(request)).second) {
    throw std::logic_error("scheduler: request id " + std::to_string(added->id) + " is in use");
  }
  waiting_.insert(added);
  if (added->deadline_ns > 0) deadlines_.insert({added->deadline_ns, added});
}

void Scheduler::Expire(int64_t now_ns, DeltaBatch* out) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_ns) {
    Request* request = deadlines_.begin()->second;
    out->AddEnd(request->id, FinishReason::kDeadline);
    Remove(request, FinishReason::kDeadline);
  }
}

void Scheduler::Abort(int64_t id, DeltaBatch* out) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  out->AddEnd(id, FinishReason::kAbort);
  Remove(it->second.get(), FinishReason::kAbort);
}

// The story of a step: those that generate come first, then those that still read their prompt, and
// what is left of the budget goes to those that wait. When somebody has just been preempted, nobody
// comes in: there are too few pages for those that run.
const StepPlan& Scheduler::Schedule() {
  const int64_t preemptions = counters_.preemptions;
  plan_.sequences.clear();
  plan_.copies.clear();
  plan_.budget_left = limits_.max_step_tokens;
  plan_.logit_rows_left = limits_.max_logit_rows;
  plan_.scored_left = kMaxScoredRows;
  PlanDecodes();
  num_decode_rows_ = limits_.max_step_tokens - plan_.budget_left;
  plan_.budget_left = pace_.PrefillRows(num_decode_rows_, plan_.budget_left);
  const int32_t prefill_rows = plan_.budget_left;
  PlanPrefills();
  if (counters_.preemptions == preemptions) AdmitWaiting();
  num_prefill_rows_ = prefill_rows - plan_.budget_left;
  return plan_;
}

void Scheduler::Observe(double seconds) {
  pace_.Observe(num_decode_rows_, num_prefill_rows_, seconds);
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
  first_prefill_ = plan_.sequences.size();
  for (Request* request : running_) {
    if (plan_.budget_left == 0) return;
    if (!request->decoding()) PlanPrefill(request);
  }
}

// Takes from the cache what has come there since the last step. What another request will compute
// in this step, this one does not compute too: it waits, and takes it then.
void Scheduler::PlanPrefill(Request* request) {
  ledger_.Reuse(request);
  const auto computes_its_page = [&](const PlannedSequence& sequence) {
    return ledger_.NextPageIsComputedBy(*sequence.request, *request);
  };
  const auto prefills = plan_.sequences.begin() + static_cast<int64_t>(first_prefill_);
  if (std::any_of(prefills, plan_.sequences.end(), computes_its_page)) return;
  ledger_.CopyPartial(running_, request, &plan_.copies);
  PlanRows(request, plan_.budget_left);
}

// In rank order. One that does not fit is passed by those that do, but not for ever.
void Scheduler::AdmitWaiting() {
  std::vector<Request*> blocked;
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    Request* request = *next++;
    if (plan_.budget_left == 0 || !HasRoomToRun()) return;
    if (Fits(*request)) {
      Admit(request);
      PlanPrefill(request);
      for (Request* passed : blocked) ++passed->num_passed;
    } else {
      blocked.push_back(request);
    }
    const auto waited_enough = [](const Request* b) { return b->num_passed >= kMaxPassed; };
    if (std::any_of(blocked.begin(), blocked.end(), waited_enough)) return;
    if (blocked.size() >= kMaxBlocked) return;
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
  ledger_.OpenWindow(sequence.num_rows, request);
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
  const int32_t held = static_cast<int32_t>(request->pages.size());
  const int32_t count = limits_.PagesFor(request->num_tokens()) - held;
  const Demand demand{count, limits_.PagesFor(request->max_cached_tokens()), 0};
  while (Judge(demand, {pool().num_total(), pool().num_available()}) != Fit::kNow) {
    Request* victim = running_.back();
    if (running_.size() == 1 && ledger_.num_pinned() > 0) {
      ledger_.DropPins();
      continue;
    }
    Preempt(victim);
    if (victim == request) return false;
  }
  ledger_.Grow(count, request);
  return true;
}

bool Scheduler::HasRoomToRun() const {
  return static_cast<int32_t>(running_.size()) < limits_.max_running();
}

bool Scheduler::CanAdmitHead() {
  return !waiting_.empty() && HasRoomToRun() && Fits(**waiting_.begin());
}

bool Scheduler::Fits(const Request& request) {
  if (admission_.Ask(request, ledger_.Find(request), running_) == Fit::kNow) return true;
  if (!running_.empty() || ledger_.num_pinned() == 0) return false;
  // Alone, and kept out by pins: those are a favour, and a request that was accepted must end.
  ledger_.DropPins();
  return Fits(request);
}

// All pages of the tokens so far are taken at once, so that only decodes ever grow.
void Scheduler::Admit(Request* request) {
  ledger_.Open(ledger_.Find(*request), request);
  waiting_.erase(request);
  running_.insert(std::upper_bound(running_.begin(), running_.end(), request, RankOrder()),
                  request);
  request->running = true;
  request->num_admitted = request->num_tokens();
  if (!request->started) counters_.prompt_tokens += request->num_prompt;
  request->started = true;
}

void Scheduler::Preempt(Request* request) {
  ledger_.Close(request);
  request->running = false;
  request->preempted = true;
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
    const FinishReason reason = sampled.refused ? FinishReason::kRefused : FinishReason::kError;
    out->AddError(request->id, sampled.error, reason);
    Remove(request, reason);
    return;
  }
  ledger_.Index(request);
  if (request->pin_prefix && request->num_computed >= request->num_prompt) {
    request->pin_prefix = false;
    const std::string error = ledger_.Pin(*request);
    if (!error.empty()) {
      out->AddError(request->id, error, FinishReason::kRefused);
      Remove(request, FinishReason::kRefused);
      return;
    }
  }
  if (sequence.num_scored > 0) {
    request->logprobs_from += sequence.num_scored;
    out->AddScores(request->id, sequence.num_scored, sampled.prompt_logprobs);
  }
  if (sequence.samples) {
    Accept(request, sampled, out);
  } else if (request->max_tokens == 0 && request->num_uncomputed() == 0) {
    out->AddEnd(request->id, FinishReason::kLength);
    out->deltas.back().num_cached = request->num_cached;
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
  const int32_t num_cached = request->num_generated() == 0 ? request->num_cached : -1;
  ++counters_.generated_tokens;
  if (request->IsStopId(token)) {
    out->AddStop(request->id, logprobs);
    out->deltas.back().num_cached = num_cached;
    admission_.Record(request->num_generated() + 1);
    Remove(request, FinishReason::kStop);
    return false;
  }
  request->tokens.push_back(token);
  request->thinking.Accept(token);
  const bool last = request->num_generated() >= request->max_tokens;
  const FinishReason finish = completes ? FinishReason::kStop
                              : last    ? FinishReason::kLength
                                        : FinishReason::kNone;
  out->AddToken(request->id, token, finish, logprobs);
  out->deltas.back().num_cached = num_cached;
  if (finish == FinishReason::kNone) return true;
  admission_.Record(request->num_generated());
  Remove(request, finish);
  return false;
}

void Scheduler::Remove(Request* request, FinishReason reason) {
  ledger_.Close(request);
  if (request->deadline_ns > 0) deadlines_.erase({request->deadline_ns, request});
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
    case FinishReason::kRefused:
      ++counters_.failed;
      break;
    case FinishReason::kDeadline:
      ++counters_.expired;
      break;
    default:
      ++counters_.finished;
  }
  const int64_t id = request->id;  // a copy: the request dies in erase
  requests_.erase(id);
}

void Scheduler::FailStep(const std::string& message, DeltaBatch* out) {
  std::vector<Request*> failed;
  for (const PlannedSequence& sequence : plan_.sequences) failed.push_back(sequence.request);
  if (failed.empty()) {  // before anybody was planned: those are to blame who come first
    failed = running_;
    if (!waiting_.empty()) failed.push_back(*waiting_.begin());
  }
  // The pool is emptied first and the books are made to agree with it: whatever state the failure
  // left behind, also of a request that was about to be admitted, no page can be lost or given back
  // twice.
  ledger_.Reset();
  for (const auto& [id, request] : requests_) {
    request->pages.clear();
    request->num_indexed = 0;
    request->num_computed = 0;
    request->window_begin = request->window_end = 0;
  }
  for (Request* request : running_) {
    request->running = false;
    request->preempted = true;
    waiting_.insert(request);
  }
  running_.clear();
  plan_.sequences.clear();
  for (Request* request : failed) {
    out->AddError(request->id, message);
    Remove(request, FinishReason::kError);
  }
}

void Scheduler::EndAll(FinishReason reason, const std::string& message, DeltaBatch* out) {
  ledger_.Reset();
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
  deadlines_.clear();
  plan_.sequences.clear();
  requests_.clear();
}

void Scheduler::CheckIntegrity() const {
  for (const Request* request : running_) {
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
  ledger_.Check(running_);
}

}  // namespace cupola
