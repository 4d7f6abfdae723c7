#include "engine/embedder.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "support/clock.h"
#include "support/failpoint.h"
#include "support/thread_setup.h"

namespace cupola {

namespace {

// After so many steps in a row of which no text succeeded, the next one would fail too.
constexpr int32_t kMaxFailuresInARow = 3;

double SecondsSince(int64_t begin_ns) { return static_cast<double>(WallNs() - begin_ns) * 1e-9; }

}  // namespace

Embedder::Embedder(std::shared_ptr<Encoder> encoder, const EmbedderOptions& options)
    : encoder_(std::move(encoder)), options_(options), queue_(encoder_->info()) {
  ReadFailpointsOnce();
  if (!encoder_->Claim()) throw std::runtime_error("this model already serves another engine");
  sign_of_life_ns_ = WallNs();
  std::promise<void> started;
  std::future<void> ready = started.get_future();
  thread_ = std::thread(&Embedder::Run, this, std::move(started));
  try {
    ready.get();
  } catch (...) {
    thread_.join();
    encoder_->Release();
    throw;
  }
}

Embedder::~Embedder() { Close(); }

EmbedRefusal Embedder::Add(EmbedJob job) {
  if (stop_ || dead_) return EmbedRefusal::kStopped;
  if (draining_) return EmbedRefusal::kDraining;
  const EncoderInfo& info = encoder_->info();
  for (int64_t text = 0; text < job.num_texts(); ++text) {
    const int32_t length = job.offsets[text + 1] - job.offsets[text];
    if (length < 1 || length > std::min(info.max_context, info.max_step_tokens)) {
      return EmbedRefusal::kTooLong;
    }
  }
  const auto all_below = [](const std::vector<int32_t>& values, int32_t end) {
    return std::all_of(values.begin(), values.end(),
                       [end](int32_t v) { return v >= 0 && v < end; });
  };
  if (!all_below(job.tokens, info.vocab_size) || !all_below(job.types, info.num_types)) {
    return EmbedRefusal::kBadToken;
  }
  if (num_accepted_.fetch_add(1) - num_ended_ >= options_.max_queue) {
    --num_accepted_;
    return EmbedRefusal::kQueueFull;
  }
  // From here on a wait counts: an idle thread that does not wake up will look as old as it is.
  if (idle_) sign_of_life_ns_ = WallNs();
  commands_.Push({std::make_unique<EmbedJob>(std::move(job)), 0});
  wake_.Signal();
  // The thread may have ended between the check above and the push.
  if (stopped_) EndLeftovers();
  return EmbedRefusal::kNone;
}

void Embedder::Abort(int64_t id) {
  commands_.Push({nullptr, id});
  wake_.Signal();
}

std::vector<EmbedResult> Embedder::Take() {
  // Cleared first: what is published from here on signals again, so no result is ever left unseen.
  output_ready_.Clear();
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(output_, {});
}

EmbedderStats Embedder::stats() const {
  EmbedderStats stats;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats = stats_;
  }
  stats.waiting = std::max<int64_t>(0, num_accepted_ - stats.running - stats.counters.ended());
  const int64_t last_sign_ns = sign_of_life_ns_;  // before the clock, or the age could be negative
  stats.last_step_age = idle_ && num_accepted_ == num_ended_ ? 0 : SecondsSince(last_sign_ns);
  return stats;
}

std::string Embedder::failure() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void Embedder::Close() {
  stop_ = true;
  wake_.Signal();
  {
    const std::lock_guard<std::mutex> lock(close_mutex_);
    if (thread_.joinable()) {
      thread_.join();
      encoder_->Release();
    }
  }
  EndLeftovers();
}

// ---- The thread ---------------------------------------------------------------------------------

void Embedder::Run(std::promise<void> started) {
  SetUpThread("cupola-encoder");
  try {
    encoder_->Start(options_.threads);
  } catch (...) {
    started.set_exception(std::current_exception());
    return;
  }
  started.set_value();
  // A dead one runs on: it has to answer those who were accepted while it died.
  while (!stop_) {
    DrainCommands();
    if (queue_.idle()) {
      Wait();
    } else {
      Step();
    }
  }
  encoder_->Stop();
  queue_.EndAll(EmbedEnd::kAborted, "");
  Publish();
  stopped_ = true;
}

void Embedder::Step() {
  const int64_t begin = WallNs();
  const std::vector<EmbedQueue::Pick> picks = queue_.Schedule();
  try {
    Embed(picks);
    num_failures_in_a_row_ = 0;
  } catch (...) {
    EmbedOneByOne(picks);
  }
  ++num_steps_;
  step_seconds_ += SecondsSince(begin);
  sign_of_life_ns_ = WallNs();
  Publish();
}

void Embedder::EmbedOneByOne(const std::vector<EmbedQueue::Pick>& picks) {
  std::string last_error;
  bool succeeded = false;
  for (const EmbedQueue::Pick& pick : picks) {
    std::string error;
    try {
      Embed({pick});
      succeeded = true;
      continue;
    } catch (const std::exception& thrown) {
      error = thrown.what();
    } catch (...) {
      error = "the model threw something that is not a C++ exception";
    }
    queue_.End(pick.job, EmbedEnd::kFailed, error);
    last_error = std::move(error);
  }
  num_failures_in_a_row_ = succeeded ? 0 : num_failures_in_a_row_ + 1;
  if (num_failures_in_a_row_ >= kMaxFailuresInARow) Die(last_error);
}

void Embedder::Embed(const std::vector<EmbedQueue::Pick>& picks) {
  std::vector<EmbedQueue::Pick> live;
  std::copy_if(picks.begin(), picks.end(), std::back_inserter(live),
               [this](const EmbedQueue::Pick& pick) { return queue_.has(pick.job); });
  if (live.empty()) return;
  Failpoint("forward");
  queue_.Commit(live, encoder_->Embed(queue_.InputOf(live)));
}

void Embedder::DrainCommands() {
  for (Command& command : commands_.TakeAll()) {
    if (command.job != nullptr) {
      queue_.Add(std::move(*command.job));
    } else {
      queue_.End(command.abort_id, EmbedEnd::kAborted, "");
    }
  }
  if (dead_) queue_.EndAll(EmbedEnd::kFailed, failure());
  Publish();
}

void Embedder::Wait() {
  idle_ = true;
  wake_.Wait();
  idle_ = false;
  sign_of_life_ns_ = WallNs();
}

void Embedder::Die(const std::string& message) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    failure_ = message;
  }
  queue_.EndAll(EmbedEnd::kFailed, message);
  dead_ = true;
  Publish();
  output_ready_.Signal();
}

// The gauges go with the results: whoever has seen a job end finds it counted.
void Embedder::Publish() {
  std::vector<EmbedResult> results = queue_.TakeResults();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::move(results.begin(), results.end(), std::back_inserter(output_));
    stats_.counters = queue_.counters();
    stats_.running = queue_.num_running();
    stats_.steps = num_steps_;
    stats_.step_seconds = step_seconds_;
    num_ended_ = stats_.counters.ended();
  }
  if (!results.empty()) output_ready_.Signal();
}

// Jobs that came while the thread ended: nobody else will answer them.
void Embedder::EndLeftovers() {
  const std::lock_guard<std::mutex> lock(close_mutex_);
  for (Command& command : commands_.TakeAll()) {
    if (command.job != nullptr) queue_.Add(std::move(*command.job));
  }
  queue_.EndAll(EmbedEnd::kAborted, "");
  Publish();
}

}  // namespace cupola
