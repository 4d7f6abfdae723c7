#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <utility>

#include "support/failpoint.h"
#include "support/thread_setup.h"

namespace cupola {

namespace {

// After so many failed steps in a row, the next one would fail too.
constexpr int32_t kMaxFailuresInARow = 3;

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

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
  GiveSignOfLife();
  Publish();
  std::promise<void> started;
  std::future<void> ready = started.get_future();
  thread_ = std::thread(&Engine::Run, this, std::move(started));
  try {
    ready.get();
  } catch (...) {
    thread_.join();
    model_->Release();
    throw;
  }
}

Engine::~Engine() { Close(); }

Refusal Engine::Add(std::unique_ptr<Request> request) {
  if (stop_ || dead_) return Refusal::kStopped;
  if (draining_) return Refusal::kDraining;
  if (!HasOnlyIdsBelow(model_->info().vocab_size, *request)) return Refusal::kBadToken;
  if (request->tokens.empty() || request->max_tokens < 0) return Refusal::kTooLong;
  if (!Scheduler::CanEverFit(options_.limits, request->num_prompt, request->max_tokens)) {
    return Refusal::kTooLong;
  }
  const int64_t waiting = num_accepted_.fetch_add(1) - num_settled_;
  if (waiting >= options_.max_queue) {
    --num_accepted_;
    return Refusal::kQueueFull;
  }
  // From here on a wait counts: an idle thread that does not wake up will look as old as it is.
  if (idle_) GiveSignOfLife();
  request->arrival_ns = NowNs();
  Command command;
  command.request = std::move(request);
  commands_.Push(std::move(command));
  wake_.Signal();
  // The thread may have ended between the check above and the push.
  if (stopped_) EndLeftovers();
  return Refusal::kNone;
}

void Engine::Abort(int64_t request_id) {
  Command command;
  command.abort_id = request_id;
  commands_.Push(std::move(command));
  wake_.Signal();
}

void Engine::Unpin(uint64_t seed, std::vector<int32_t> tokens) {
  Command command;
  command.unpin_seed = seed;
  command.unpinned = std::move(tokens);
  commands_.Push(std::move(command));
  wake_.Signal();
}

EngineStats Engine::stats() const {
  EngineStats stats = board_.Get();
  // Read after the snapshot, so that a request that was just accepted is never missing from it.
  stats.waiting = std::max<int64_t>(0, num_accepted_ - stats.running - stats.counters.ended());
  return stats;
}

double Engine::last_step_age() const {
  if (idle_ && num_accepted_ == num_settled_) return 0;
  // The sign is read before the clock: the other way round, a step that ends between the two reads
  // makes the age negative.
  const int64_t last_sign_ns = sign_of_life_ns_;
  return static_cast<double>(NowNs() - last_sign_ns) * 1e-9;
}

std::string Engine::failure() const {
  const std::lock_guard<std::mutex> lock(failure_mutex_);
  return failure_;
}

void Engine::Drain() { draining_ = true; }

void Engine::Close() {
  stop_ = true;
  wake_.Signal();
  {
    const std::lock_guard<std::mutex> lock(close_mutex_);
    if (thread_.joinable()) {
      thread_.join();
      model_->Release();
    }
  }
  EndLeftovers();
}

// ---- The engine thread --------------------------------------------------------------------------

void Engine::Run(std::promise<void> started) {
  SetUpThread("cupola-engine");
  try {
    model_->Start(options_.limits.num_pages, options_.limits.num_window_pages, options_.threads);
  } catch (...) {
    started.set_exception(std::current_exception());
    return;
  }
  started.set_value();
  // A dead engine runs on: it has to answer those who were accepted while it died.
  while (!stop_) {
    try {
      Loop();
    } catch (const std::exception& error) {
      Die(error.what());
    }
  }
  model_->Stop();
  scheduler_.EndAll(FinishReason::kAbort, "", &outbox_);
  Publish();
  stopped_ = true;
}

void Engine::Loop() {
  while (!stop_) {
    DrainCommands();
    if (scheduler_.idle()) {
      WaitForCommands();
    } else {
      Step();
    }
  }
}

void Engine::Step() {
  const int64_t begin = NowNs();
  try {
    Failpoint("schedule");
    const StepPlan& plan = scheduler_.Schedule();
    if (plan.empty()) throw std::logic_error("scheduler: requests wait, but none can run");
    Prepare(plan);
    if (!plan.copies.empty()) model_->CopyPages(plan.copies);
    Forward(plan);
    Failpoint("sample");
    const std::vector<Sampled>& sampled = Sample(plan);
    step_times_.Add(plan, begin, NowNs());
    scheduler_.Commit(sampled, &outbox_);
    if (options_.check_every_step) scheduler_.CheckIntegrity();
    num_failures_in_a_row_ = 0;
  } catch (const std::exception& error) {
    OnStepFailed(error.what());
  } catch (...) {
    OnStepFailed("the model threw something that is not a C++ exception");
  }
  ++num_steps_;
  Failpoint("publish");
  Publish();
  GiveSignOfLife();
  // Seen with the next step's numbers, so that the time of publishing is in it.
  const double seconds = static_cast<double>(NowNs() - begin) * 1e-9;
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
  scheduler_.Expire(NowNs(), &outbox_);
  if (dead_) scheduler_.EndAll(FinishReason::kError, failure(), &outbox_);
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
  num_settled_ = stats.running + stats.counters.ended();
  output_.Publish(&outbox_);
}

void Engine::OnStepFailed(const std::string& message) {
  if (++num_failures_in_a_row_ >= kMaxFailuresInARow) {
    Die(message);
  } else {
    scheduler_.FailStep(message, &outbox_);
  }
}

void Engine::Die(const std::string& message) {
  {
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    failure_ = message;
  }
  scheduler_.EndAll(FinishReason::kError, message, &outbox_);
  dead_ = true;
  Publish();
  output_.Wake();
}

void Engine::WaitForCommands() {
  scheduler_.CheckIntegrity();
  idle_ = true;
  wake_.Wait();
  idle_ = false;
  GiveSignOfLife();
}

// Requests that came while the thread ended: nobody else will answer them.
void Engine::EndLeftovers() {
  const std::lock_guard<std::mutex> lock(close_mutex_);
  for (Command& command : commands_.TakeAll()) {
    if (command.request != nullptr) scheduler_.Add(std::move(command.request));
  }
  scheduler_.EndAll(FinishReason::kAbort, "", &outbox_);
  Publish();
}

void Engine::GiveSignOfLife() { sign_of_life_ns_ = NowNs(); }

}  // namespace cupola
