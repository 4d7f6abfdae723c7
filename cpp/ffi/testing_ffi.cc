// Doors for tests: the scheduler step by step, without a thread or a model, the sampler, the
// sample stage and the threads of a model alone.
// cupola.testing.*
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/container/tuple.h>
#include <tvm/ffi/reflection/registry.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>

#include "engine/sample_stage.h"
#include "engine/scheduler.h"
#include "ffi/objects.h"
#include "ffi/packed_request.h"
#include "sampling/sampler.h"
#include "support/failpoint.h"
#include "support/thread_budget.h"
#include "support/thread_team.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

using Report = ffi::Map<ffi::String, ffi::Shape>;

class SchedulerObj : public ffi::Object {
 public:
  explicit SchedulerObj(const Limits& limits) : limits(limits), scheduler(limits) {}
  const Limits limits;
  Scheduler scheduler;
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("cupola.testing.Scheduler", SchedulerObj, ffi::Object);
};

class SchedulerRef : public ffi::ObjectRef {
 public:
  explicit SchedulerRef(tvm::ffi::ObjectPtr<SchedulerObj> object)
      : ffi::ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(SchedulerRef, ffi::ObjectRef, SchedulerObj);
};

constexpr int32_t kStopId = 1;
constexpr int32_t kPlainId = 0;

SchedulerRef MakeScheduler(int64_t num_pages, int64_t page_size, int64_t max_batch,
                           int64_t max_step_tokens, int64_t max_context, int64_t foresight) {
  Limits limits;
  limits.num_pages = static_cast<int32_t>(num_pages);
  limits.page_size = static_cast<int32_t>(page_size);
  limits.max_batch = static_cast<int32_t>(max_batch);
  limits.max_step_tokens = static_cast<int32_t>(max_step_tokens);
  limits.max_context = static_cast<int32_t>(max_context);
  limits.foresight = static_cast<Foresight>(foresight);
  return SchedulerRef(ffi::make_object<SchedulerObj>(limits));
}

// False if the request can never fit; it is then not taken.
bool Add(SchedulerRef self, int64_t id, ffi::Shape prompt, int64_t max_tokens, int64_t priority,
         bool pin_prefix, int64_t deadline_ns) {
  if (!Scheduler::CanEverFit(self->limits, prompt.size(), max_tokens)) return false;
  auto request = std::make_unique<Request>();
  request->id = id;
  request->priority = static_cast<int32_t>(priority);
  request->max_tokens = static_cast<int32_t>(max_tokens);
  request->num_prompt = static_cast<int32_t>(prompt.size());
  request->tokens.assign(prompt.begin(), prompt.end());
  request->pin_prefix = pin_prefix;
  request->deadline_ns = deadline_ns;
  request->stop_ids = {kStopId};
  self->scheduler.Add(std::move(request));
  self->scheduler.CheckIntegrity();
  return true;
}

// Pairs (id, finish reason) of the requests that ended.
ffi::Shape EndsOf(const DeltaBatch& batch) {
  std::vector<int64_t> ends;
  for (const DeltaBatch::Delta& delta : batch.deltas) {
    if (delta.finish == FinishReason::kNone) continue;
    ends.insert(ends.end(), {delta.request_id, static_cast<int64_t>(delta.finish)});
  }
  return ffi::Shape(ends);
}

ffi::Shape Abort(SchedulerRef self, int64_t id) {
  DeltaBatch out;
  self->scheduler.Abort(id, &out);
  self->scheduler.CheckIntegrity();
  return EndsOf(out);
}

ffi::Shape Expire(SchedulerRef self, int64_t now_ns) {
  DeltaBatch out;
  self->scheduler.Expire(now_ns, &out);
  self->scheduler.CheckIntegrity();
  return EndsOf(out);
}

void Unpin(SchedulerRef self, ffi::Shape tokens) {
  self->scheduler.Unpin(0, std::vector<int32_t>(tokens.begin(), tokens.end()));
  self->scheduler.CheckIntegrity();
}

// Pages: free; cached and held by nobody; held; pinned.
ffi::Shape Pages(SchedulerRef self) {
  const PagePool& pool = self->scheduler.pool();
  return ffi::Shape({pool.num_free(), pool.num_evictable(), pool.num_held(),
                     self->scheduler.ledger().num_pinned()});
}

// What one step did:
//   planned   (id, rows, samples) of each planned sequence, in order
//   copies    (page, page) of each page that is copied before the forward
//   ended     (id, finish reason)
//   tokens    ids that got a token
//   cached    (id, tokens) of each request that was told how many of its prompt were cached
//   running   ids in rank order, before the step was booked
//   facts     preemptions, budget left, head could be admitted?, waiting
Report ReportOf(Scheduler& scheduler, const StepPlan& plan, int64_t preemptions) {
  std::vector<int64_t> planned, running, copies;
  for (const PlannedSequence& sequence : plan.sequences) {
    planned.insert(planned.end(), {sequence.request->id, sequence.num_rows, sequence.samples});
  }
  for (const PageCopy& copy : plan.copies) copies.insert(copies.end(), {copy.src, copy.dst});
  for (const Request* request : scheduler.running()) running.push_back(request->id);
  Report report;
  report.Set("planned", ffi::Shape(planned));
  report.Set("copies", ffi::Shape(copies));
  report.Set("running", ffi::Shape(running));
  report.Set("facts", ffi::Shape({preemptions, plan.budget_left, scheduler.CanAdmitHead(),
                                  scheduler.num_waiting()}));
  return report;
}

// Schedules, "samples" a stop id for each request in `stopping` (a plain token for the others) and
// books the step; or, when `fails`, reports it as failed.
Report Step(SchedulerRef self, ffi::Shape stopping, bool fails) {
  Scheduler& scheduler = self->scheduler;
  const int64_t before = scheduler.counters().preemptions;
  const StepPlan& plan = scheduler.Schedule();
  scheduler.CheckIntegrity();
  Report report = ReportOf(scheduler, plan, scheduler.counters().preemptions - before);
  std::vector<Sampled> sampled(plan.sequences.size());
  for (size_t i = 0; i < sampled.size(); ++i) {
    const PlannedSequence& sequence = plan.sequences[i];
    if (!sequence.samples) continue;
    const auto found = std::find(stopping.begin(), stopping.end(), sequence.request->id);
    sampled[i].token = found != stopping.end() ? kStopId : kPlainId;
  }
  DeltaBatch out;
  if (fails) {
    scheduler.FailStep("failed on purpose", &out);
  } else {
    scheduler.Commit(sampled, &out);
  }
  scheduler.CheckIntegrity();
  std::vector<int64_t> tokens, cached;
  for (const DeltaBatch::Delta& delta : out.deltas) {
    if (delta.num_tokens > 0) tokens.push_back(delta.request_id);
    if (delta.num_cached >= 0) cached.insert(cached.end(), {delta.request_id, delta.num_cached});
  }
  report.Set("cached", ffi::Shape(cached));
  report.Set("tokens", ffi::Shape(tokens));
  report.Set("ended", EndsOf(out));
  return report;
}

// `count` draws from one float32 row [vocab], at the positions 0 .. count - 1.
ffi::Shape Sample(ffi::TensorView logits, double temperature, int64_t top_k, double top_p,
                  double min_p, int64_t seed, int64_t count) {
  SamplingParams params;
  params.temperature = static_cast<float>(temperature);
  params.top_k = static_cast<int32_t>(top_k);
  params.top_p = static_cast<float>(top_p);
  params.min_p = static_cast<float>(min_p);
  params.seed = static_cast<uint64_t>(seed);
  Sampler sampler;
  std::vector<int64_t> drawn;
  for (int64_t position = 0; position < count; ++position) {
    drawn.push_back(sampler.Sample(static_cast<const float*>(logits.data_ptr()),
                                   static_cast<int32_t>(logits.size(0)), params, position));
  }
  return ffi::Shape(drawn);
}

// Lets the sample stage work on rows [k, vocab], one after the other, for the packed request, which
// takes the sampled tokens in between; ends at an error. Changes the rows in place.
// (tokens, log-probabilities as in cupola.engine.take, the error or "")
using Stage = ffi::Tuple<ffi::Shape, ffi::Bytes, ffi::String>;

Stage SampleRows(ffi::Bytes packed, ffi::TensorView rows) {
  const std::unique_ptr<Request> request = ReadRequest(packed);
  const int64_t vocab_size = rows.size(1);
  SampleStage stage(static_cast<int32_t>(vocab_size));
  StepPlan plan;
  plan.sequences.push_back({request.get(), 1, true});
  std::vector<int64_t> tokens;
  TokenLogprobs logprobs;
  std::string error;
  for (int64_t i = 0; i < rows.size(0) && error.empty(); ++i) {
    const LogitsView row{static_cast<float*>(rows.data_ptr()) + i * vocab_size, 1, vocab_size};
    stage.Prepare(plan);
    const Sampled& sampled = stage.Sample(plan, row).front();
    error = sampled.error;
    if (!error.empty()) break;
    tokens.push_back(sampled.token);
    request->tokens.push_back(sampled.token);
    logprobs.insert(logprobs.end(), sampled.logprobs.begin(), sampled.logprobs.end());
  }
  return Stage(ffi::Shape(tokens), EncodeLogprobs(logprobs), error);
}

// Lets `num_workers` of a team count through the stages of `rounds` tasks, and returns how often
// one saw, behind a barrier, that another was not there yet; plus what the workers returned.
struct Counting {
  ThreadTeam* team;
  int32_t num_workers;
  int32_t stages;
  std::vector<int64_t> cells;  // the stage that each worker has reached
  std::atomic<int64_t> num_errors{0};
};

int Count(int32_t worker, void* context) {
  auto* counting = static_cast<Counting*>(context);
  for (int32_t stage = 1; stage <= counting->stages; ++stage) {
    counting->cells[worker] = stage;
    counting->team->Barrier(worker);
    for (int32_t i = 0; i < counting->num_workers; ++i) {
      if (counting->cells[i] != stage) ++counting->num_errors;
    }
    counting->team->Barrier(worker);
  }
  return 0;
}

int64_t CountOnTeam(int64_t num_threads, int64_t num_workers, int64_t rounds, int64_t stages,
                    int64_t spin_us) {
  ThreadTeam team({static_cast<int32_t>(num_threads), /*bind=*/false, spin_us * 1000});
  int64_t num_errors = team.size() != num_threads;
  for (int64_t round = 0; round < rounds; ++round) {
    // Not always the same workers, so that some sleep while others work.
    const auto workers = static_cast<int32_t>(1 + (num_workers - 1 + round) % num_threads);
    Counting counting{
        &team, workers, static_cast<int32_t>(stages), std::vector<int64_t>(workers), {}};
    num_errors += team.Run(workers, Count, &counting) != 0;
    num_errors += counting.num_errors;
    for (int64_t stage : counting.cells) num_errors += stage != stages;
  }
  return num_errors;
}

// The number of threads for each of many tasks in a row. Three numbers say what a task is: how many
// nanoseconds it takes, how many more when it stalls, and up to how many threads it does not.
ffi::Shape SpendBudget(int64_t most, ffi::Shape tasks) {
  ThreadBudget budget(static_cast<int32_t>(most));
  std::vector<int64_t> chosen;
  int64_t now = 0;
  for (size_t i = 0; i + 2 < tasks.size(); i += 3) {
    const int32_t threads = budget.Choose(now);
    chosen.push_back(threads);
    const int64_t stalled = threads > tasks[i + 2] ? tasks[i + 1] : 0;
    now += tasks[i] + stalled;
    budget.Record(now, tasks[i] + stalled, stalled);
  }
  return ffi::Shape(chosen);
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::ObjectDef<SchedulerObj>();
  refl::GlobalDef()
      .def("cupola.testing.scheduler", MakeScheduler)
      .def("cupola.testing.add", Add)
      .def("cupola.testing.abort", Abort)
      .def("cupola.testing.step", Step)
      .def("cupola.testing.expire", Expire)
      .def("cupola.testing.unpin", Unpin)
      .def("cupola.testing.pages", Pages)
      .def("cupola.testing.set_failpoints", [](ffi::String settings) { SetFailpoints(settings); })
      .def("cupola.testing.sample", Sample)
      .def("cupola.testing.count_on_team", CountOnTeam)
      .def("cupola.testing.spend_budget", SpendBudget)
      .def("cupola.testing.sample_rows", SampleRows);
}

}  // namespace cupola
