// Who runs in the next step: continuous batching under a token budget and a pool of pages.
//
// It owns the requests and their progress. It knows no model, no threads, no FFI: a caller asks for
// a plan (Schedule), computes it, and hands back the sampled tokens (Commit).
//
// One order rules everything, the rank: higher priority first, then earlier arrival. Requests are
// admitted in rank order and lose their pages in reverse rank order. A preempted request keeps its
// tokens and its arrival, so it stands again before all later ones of its priority. Whoever does
// not fit is passed by some that do, a bounded number of times.
#ifndef CUPOLA_ENGINE_SCHEDULER_H_
#define CUPOLA_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/admission.h"
#include "engine/delta.h"
#include "engine/limits.h"
#include "engine/pace.h"
#include "engine/page_ledger.h"
#include "engine/request.h"
#include "engine/step_plan.h"
#include "sampling/sampled.h"

namespace cupola {

// Counts since the start.
struct SchedulerCounters {
  int64_t preemptions = 0;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t finished = 0;
  int64_t aborted = 0;
  int64_t failed = 0;
  int64_t expired = 0;
  int64_t ended() const { return finished + aborted + failed + expired; }
};

class Scheduler {
 public:
  explicit Scheduler(const Limits& limits);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // True if a request of that size, alone, could run to its end. Pure: any thread may ask.
  static bool CanEverFit(const Limits& limits, int64_t num_prompt, int64_t max_tokens);

  // Takes a request for which CanEverFit is true and whose id is not in use.
  void Add(std::unique_ptr<Request> request);
  // Ends the request with kAbort; nothing happens if it is not here (any more).
  void Abort(int64_t id, DeltaBatch* out);
  // Ends the requests whose deadline has come, whether they wait or run, with kDeadline.
  void Expire(int64_t now_ns, DeltaBatch* out);
  // Lets a prefix go that a request pinned; nothing happens if there is no such pin.
  void Unpin(uint64_t seed, const std::vector<int32_t>& tokens) { ledger_.Unpin(seed, tokens); }

  // Plans the next step, with pages taken for all of it. The plan is empty only if there are no
  // requests; it stays valid until the next call of any other method that is not const.
  const StepPlan& Schedule();
  // Books the step: `sampled` holds one result for each planned sequence.
  void Commit(const std::vector<Sampled>& sampled, DeltaBatch* out);
  // The planned step failed: ends its requests with kError and takes all pages back; requests that
  // were not part of it are kept and computed anew. If it failed before anybody was planned, those
  // that run and the first of those that wait count as planned, so that every failure ends
  // somebody.
  void FailStep(const std::string& message, DeltaBatch* out);
  // Ends every request.
  void EndAll(FinishReason reason, const std::string& message, DeltaBatch* out);

  // How long the step took that was booked last; the next ones are cut accordingly.
  void Observe(double seconds);

  // Throws std::logic_error, with the numbers, unless every page is either free, or held, or cached
  // alone; it has as many holders as requests and pins have it; and every running request has
  // pages for what it has computed.
  void CheckIntegrity() const;

  bool idle() const { return requests_.empty(); }
  const std::vector<Request*>& running() const { return running_; }  // in rank order
  int32_t num_waiting() const { return static_cast<int32_t>(waiting_.size()); }
  // The request that will be admitted next, or null; and whether it could be now.
  const Request* head() const { return waiting_.empty() ? nullptr : *waiting_.begin(); }
  bool CanAdmitHead();
  const PageLedger& ledger() const { return ledger_; }
  const PagePool& pool() const { return ledger_.pool(); }
  const SchedulerCounters& counters() const { return counters_; }

 private:
  struct RankOrder {
    bool operator()(const Request* a, const Request* b) const {
      if (a->priority != b->priority) return a->priority > b->priority;
      return a->arrival < b->arrival;
    }
  };

  void PlanDecodes();
  void PlanPrefills();
  void AdmitWaiting();
  void PlanPrefill(Request* request);
  void PlanRows(Request* request, int32_t budget);
  void PlanScores(PlannedSequence* sequence);
  bool GrowOrPreempt(Request* request);
  bool HasRoomToRun() const;
  bool Fits(const Request& request);
  void Admit(Request* request);
  void Preempt(Request* request);
  void Book(const PlannedSequence& sequence, const Sampled& sampled, DeltaBatch* out);
  void Accept(Request* request, const Sampled& sampled, DeltaBatch* out);
  bool Append(Request* request, int32_t token, bool completes, const TokenLogprobs& logprobs,
              DeltaBatch* out);
  void Remove(Request* request, FinishReason reason);

  const Limits limits_;
  PageLedger ledger_;
  Admission admission_;
  Pace pace_;
  std::unordered_map<int64_t, std::unique_ptr<Request>> requests_;
  std::set<Request*, RankOrder> waiting_;
  std::vector<Request*> running_;  // sorted by RankOrder
  std::set<std::pair<int64_t, Request*>> deadlines_;
  StepPlan plan_;
  size_t first_prefill_ = 0;     // in the plan
  int32_t num_decode_rows_ = 0;  // of the plan, also when it has been booked
  int32_t num_prefill_rows_ = 0;
  uint64_t num_arrivals_ = 0;
  SchedulerCounters counters_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_SCHEDULER_H_
