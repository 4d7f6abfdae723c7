#include "engine/embedder.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "support/clock.h"
#include "support/failpoint.h"

namespace cupola {

namespace {

double SecondsSince(int64_t begin_ns) { return static_cast<double>(WallNs() - begin_ns) * 1e-9; }

}  // namespace

Embedder::Embedder(std::shared_ptr<Encoder> encoder, const EmbedderOptions& options)
    : encoder_(std::move(encoder)), options_(options), queue_(encoder_->info()) {
  ReadFailpointsOnce();
  if (!encoder_->Claim()) throw std::runtime_error("this model already serves another engine");
  try {
    thread_.Start(
        "cupola-encoder", [this] { encoder_->Start(options_.threads); }, [this] { Run(); });
  } catch (...) {
    encoder_->Release();
    throw;
  }
}

Embedder::~Embedder() { Close(); }

EmbedRefusal Embedder::Add(EmbedJob job) {
  if (thread_.closed()) return EmbedRefusal::kStopped;
  if (thread_.draining()) return EmbedRefusal::kDraining;
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
  if (!thread_.Admit(options_.max_queue)) return EmbedRefusal::kQueueFull;
  Send({std::make_unique<EmbedJob>(std::move(job)), 0});
  // The thread may have ended between the check above and the push.
  if (thread_.ended()) EndLeftovers();
  return EmbedRefusal::kNone;
}

void Embedder::Abort(int64_t id) { Send({nullptr, id}); }

void Embedder::Send(Command command) {
  commands_.Push(std::move(command));
  thread_.Wake();
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
  stats.waiting =
      std::max<int64_t>(0, thread_.num_accepted() - stats.running - stats.counters.ended());
  stats.last_step_age = thread_.age();
  return stats;
}

void Embedder::Close() {
  thread_.Stop([this] { encoder_->Release(); });
  EndLeftovers();
}

// ---- The thread ---------------------------------------------------------------------------------

void Embedder::Run() {
  // A dead one runs on: it has to answer those who were accepted while it died.
  while (!thread_.stop_asked()) {
    DrainCommands();
    if (queue_.idle()) {
      thread_.Wait();
    } else {
      Step();
    }
  }
  encoder_->Stop();
  queue_.EndAll(EmbedEnd::kAborted, "");
  Publish();
}

void Embedder::Step() {
  const int64_t begin = WallNs();
  const std::vector<EmbedQueue::Pick> picks = queue_.Schedule();
  try {
    Embed(picks);
    thread_.Succeeded();
  } catch (...) {
    EmbedOneByOne(picks);
  }
  ++num_steps_;
  step_seconds_ += SecondsSince(begin);
  thread_.GiveSignOfLife();
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
  if (succeeded) {
    thread_.Succeeded();
  } else if (thread_.FailsForGood()) {
    Die(last_error);
  }
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
  if (!alive()) queue_.EndAll(EmbedEnd::kFailed, failure());
  Publish();
}

void Embedder::Die(const std::string& message) {
  thread_.SetFailure(message);
  queue_.EndAll(EmbedEnd::kFailed, message);
  thread_.Die();
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
    thread_.SetSettled(stats_.counters.ended());
  }
  if (!results.empty()) output_ready_.Signal();
}

// Jobs that came while the thread ended: nobody else will answer them.
void Embedder::EndLeftovers() {
  thread_.InItsPlace([this] {
    for (Command& command : commands_.TakeAll()) {
      if (command.job != nullptr) queue_.Add(std::move(*command.job));
    }
    queue_.EndAll(EmbedEnd::kAborted, "");
    Publish();
  });
}

}  // namespace cupola
