#include "engine/engine.h"

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <utility>

#include "support/clock.h"
#include "support/failpoint.h"

namespace cupola {

namespace {

// Every id of a request will be an index into a row of logits or of the embedding.
bool HasOnlyIdsBelow(int32_t vocab_size, const Request& request) {
  const auto good = [vocab_size](const std::vector<int32_t>& ids) {
    return std::all_of(ids.begin(), ids.end(),
                       [vocab_size](int32_t id) { return id >= 0 && id < vocab_size; });
  };
  const SamplingParams& sampling = request.sampling;
  return good(request.tokens) && good(request.stop_ids) && good(sampling.bias_ids) &&
         good(sampling.allowed_ids) &&
         std::all_of(sampling.bad_words.begin(), sampling.bad_words.end(), good);
}

}  // namespace

Engine::Engine(std::shared_ptr<Model> model, const EngineOptions& options)
    : model_(std::move(model)),
      options_(options),
      scheduler_(options.limits),
      device_sampler_(model_->device_sampler()),
      sample_stage_(model_->info().vocab_size),
      device_sample_stage_(model_->info().vocab_size) {
  ReadFailpointsOnce();
  if (!model_->Claim()) throw std::runtime_error("this model already serves another engine");
  Publish();
  const auto set_up = [this] {
    model_->Start(options_.limits.num_pages, options_.limits.num_window_pages, options_.threads);
  };
  try {
    thread_.Start("cupola-engine", set_up, [this] { Run(); });
  } catch (...) {
    model_->Release();
    throw;
  }
}

Engine::~Engine() { Close(); }

Refusal Engine::Add(std::unique_ptr<Request> request) {
  if (thread_.closed()) return Refusal::kStopped;
  if (thread_.draining()) return Refusal::kDraining;
  if (!HasOnlyIdsBelow(model_->info().vocab_size, *request)) return Refusal::kBadToken;
  if (request->tokens.empty() || request->max_tokens < 0) return Refusal::kTooLong;
  if (!Scheduler::CanEverFit(options_.limits, request->num_prompt, request->max_tokens)) {
    return Refusal::kTooLong;
  }
  if (!thread_.Admit(options_.max_queue)) return Refusal::kQueueFull;
  request->arrival_ns = WallNs();
  Command command;
  command.request = std::move(request);
  Send(std::move(command));
  // The thread may have ended between the check above and the push.
  if (thread_.ended()) EndLeftovers();
  return Refusal::kNone;
}

void Engine::Abort(int64_t request_id) {
  Command command;
  command.abort_id = request_id;
  Send(std::move(command));
}

void Engine::Unpin(uint64_t seed, std::vector<int32_t> tokens) {
  Command command;
  command.unpin_seed = seed;
  command.unpinned = std::move(tokens);
  Send(std::move(command));
}

void Engine::Send(Command command) {
  commands_.Push(std::move(command));
  thread_.Wake();
}

EngineStats Engine::stats() const {
  EngineStats stats = board_.Get();
  // Read after the snapshot, so that a request that was just accepted is never missing from it.
  stats.waiting =
      std::max<int64_t>(0, thread_.num_accepted() - stats.running - stats.counters.ended());
  return stats;
}

void Engine::Close() {
  thread_.Stop([this] { model_->Release(); });
  EndLeftovers();
}

// ---- The engine thread --------------------------------------------------------------------------

void Engine::Run() {
  // A dead engine runs on: it has to answer those who were accepted while it died.
  while (!thread_.stop_asked()) {
    try {
      Loop();
    } catch (const std::exception& error) {
      Die(error.what());
    }
  }
  model_->Stop();
  scheduler_.EndAll(FinishReason::kAbort, "", &outbox_);
  Publish();
}

void Engine::Loop() {
  while (!thread_.stop_asked()) {
    DrainCommands();
    if (scheduler_.idle()) {
      scheduler_.CheckIntegrity();
      thread_.Wait();
    } else {
      Step();
    }
  }
}

void Engine::Step() {
  const int64_t begin = WallNs();
  try {
    Failpoint("schedule");
    const StepPlan& plan = scheduler_.Schedule();
    if (plan.empty()) throw std::logic_error("scheduler: requests wait, but none can run");
    Prepare(plan);
    if (!plan.copies.empty()) model_->CopyPages(plan.copies);
    Forward(plan);
    Failpoint("sample");
    const std::vector<Sampled>& sampled = Sample(plan);
    step_times_.Add(plan, begin, WallNs());
    scheduler_.Commit(sampled, &outbox_);
    if (options_.check_every_step) scheduler_.CheckIntegrity();
    thread_.Succeeded();
  } catch (const std::exception& error) {
    OnStepFailed(error.what());
  } catch (...) {
    OnStepFailed("the model threw something that is not a C++ exception");
  }
  ++num_steps_;
  Failpoint("publish");
  Publish();
  thread_.GiveSignOfLife();
  // Seen with the next step's numbers, so that the time of publishing is in it.
  const double seconds = static_cast<double>(WallNs() - begin) * 1e-9;
  scheduler_.Observe(seconds);
  step_seconds_ += seconds;
}

void Engine::DrainCommands() {
  for (Command& command : commands_.TakeAll()) {
    if (command.request != nullptr) {
      scheduler_.Add(std::move(command.request));
    } else if (!command.unpinned.empty()) {
      scheduler_.Unpin(command.unpin_seed, command.unpinned);
    } else {
      scheduler_.Abort(command.abort_id, &outbox_);
    }
  }
  scheduler_.Expire(WallNs(), &outbox_);
  if (!alive()) scheduler_.EndAll(FinishReason::kError, failure(), &outbox_);
  Publish();
}

void Engine::Prepare(const StepPlan& plan) {
  if (device_sampler_ != nullptr) {
    device_sample_stage_.Prepare(plan);
  } else {
    sample_stage_.Prepare(plan);
  }
}

void Engine::Forward(const StepPlan& plan) {
  BuildStepInput(plan, options_.limits.page_size, scheduler_.ledger().window(), &input_);
  Failpoint("forward");
  if (device_sampler_ != nullptr) {
    device_sampler_->Compute(input_);
  } else {
    logits_ = model_->Forward(input_);
  }
}

const std::vector<Sampled>& Engine::Sample(const StepPlan& plan) {
  return device_sampler_ != nullptr ? device_sample_stage_.Sample(plan, device_sampler_)
                                    : sample_stage_.Sample(plan, logits_);
}

// The gauges first: whoever has seen a request end must find its pages given back.
void Engine::Publish() {
  EngineStats stats;
  stats.counters = scheduler_.counters();
  stats.running = static_cast<int64_t>(scheduler_.running().size());
  stats.pages_total = scheduler_.pool().num_total();
  stats.pages_free = scheduler_.pool().num_available();
  stats.pages_cached = scheduler_.pool().num_cached();
  stats.pages_pinned = scheduler_.ledger().num_pinned();
  stats.prefix = scheduler_.ledger().counters();
  stats.evictions = scheduler_.ledger().num_evicted();
  stats.steps = num_steps_;
  stats.step_seconds = step_seconds_;
  board_.Set(stats);
  thread_.SetSettled(stats.running + stats.counters.ended());
  output_.Publish(&outbox_);
}

void Engine::OnStepFailed(const std::string& message) {
  if (thread_.FailsForGood()) {
    Die(message);
  } else {
    scheduler_.FailStep(message, &outbox_);
  }
}

void Engine::Die(const std::string& message) {
  thread_.SetFailure(message);
  scheduler_.EndAll(FinishReason::kError, message, &outbox_);
  thread_.Die();
  Publish();
  output_.Wake();
}

// Requests that came while the thread ended: nobody else will answer them.
void Engine::EndLeftovers() {
  thread_.InItsPlace([this] {
    for (Command& command : commands_.TakeAll()) {
      if (command.request != nullptr) scheduler_.Add(std::move(command.request));
    }
    scheduler_.EndAll(FinishReason::kAbort, "", &outbox_);
    Publish();
  });
}

}  // namespace cupola
