// Many threads at every door of one engine at once, teams at their barriers, and a worker beside
// its owner: a driver for ThreadSanitizer.
//
// Plain C++ without FFI, because tvm_ffi's reference counts use fences that the sanitizer does not
// understand. Exits with 1 if a request is lost, ends twice or gets a wrong number of tokens.
#include <sys/select.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "model/scripted_model.h"
#include "support/thread_team.h"
#include "support/worker.h"

namespace cupola {
namespace {

constexpr int kProducers = 4;
constexpr int kRequestsEach = 150;
constexpr int kMaxTokens = 12;

struct Ended {
  int tokens = 0;
  int times = 0;
  FinishReason reason = FinishReason::kNone;
};

std::unique_ptr<Request> MakeRequest(int64_t id) {
  auto request = std::make_unique<Request>();
  request->id = id;
  request->priority = static_cast<int32_t>(id % 3);
  request->tokens.assign(1 + id % 40, static_cast<int32_t>(id % 200));
  request->num_prompt = request->num_tokens();
  request->max_tokens = kMaxTokens;
  request->sampling.temperature = id % 2 == 0 ? 0.0f : 5.0f;
  request->sampling.top_p = 0.9f;
  return request;
}

// One engine's life: producers add and abort, a reader takes, a watcher looks, then it is closed.
bool RunOnce(int64_t fail_at_step, bool close_early) {
  Script script;
  script.fail_at_step = fail_at_step;
  EngineOptions options;
  options.limits = {/*num_pages=*/30, /*page_size=*/16, /*max_batch=*/8, /*max_step_tokens=*/32,
                    /*max_context=*/200};
  options.max_queue = 64;
  options.check_every_step = true;
  Engine engine(std::make_shared<ScriptedModel>(script), options);

  std::atomic<int> num_accepted{0};
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int producer = 0; producer < kProducers; ++producer) {
    threads.emplace_back([&, producer] {
      for (int i = 0; i < kRequestsEach; ++i) {
        const int64_t id = producer * kRequestsEach + i;
        Refusal refusal;
        while ((refusal = engine.Add(MakeRequest(id))) == Refusal::kQueueFull) {
          std::this_thread::yield();
        }
        if (refusal != Refusal::kNone) return;
        ++num_accepted;
        if (i % 7 == 0) engine.Abort(id);
      }
    });
  }
  std::thread watcher([&] {
    while (!done) {
      const EngineStats stats = engine.stats();
      const double age = engine.last_step_age();
      if (stats.pages_free > stats.pages_total || age < 0) {
        std::fprintf(stderr, "%d of %d pages are free, the last step is %g s old\n",
                     static_cast<int>(stats.pages_free), static_cast<int>(stats.pages_total), age);
        std::abort();
      }
      engine.alive();
      engine.failure();
      std::this_thread::yield();
    }
  });
  std::unordered_map<int64_t, Ended> ended;
  const auto take = [&] {
    for (const DeltaBatch::Delta& delta : engine.Take().deltas) {
      ended[delta.request_id].tokens += delta.num_tokens;
      ended[delta.request_id].times += delta.finish != FinishReason::kNone;
      ended[delta.request_id].reason = delta.finish;
    }
  };
  const auto num_ended = [&] {
    int count = 0;
    for (const auto& [id, end] : ended) count += end.times;
    return count;
  };
  if (close_early) {
    take();
    engine.Close();
  }
  for (std::thread& thread : threads) thread.join();
  take();
  while (num_ended() < num_accepted) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(engine.output_fd(), &set);
    select(engine.output_fd() + 1, &set, nullptr, nullptr, nullptr);
    take();
  }
  done = true;
  watcher.join();
  engine.Close();
  bool good = static_cast<int>(ended.size()) == num_accepted;
  for (const auto& [id, end] : ended) {
    good = good && end.times == 1;
    if (end.reason == FinishReason::kLength) good = good && end.tokens == kMaxTokens;
  }
  const EngineStats stats = engine.stats();
  return good && stats.pages_free == stats.pages_total && stats.running == 0 && stats.waiting == 0;
}

// A team whose workers read, behind each barrier, what all others wrote before it.
bool RunTeam(int num_threads, int64_t spin_ns) {
  struct Shared {
    ThreadTeam* team;
    int num_workers;
    int cells[8] = {};
  };
  ThreadTeam team({num_threads, /*bind=*/false, spin_ns});
  for (int round = 0; round < 200; ++round) {
    Shared shared{&team, 1 + round % num_threads};
    const auto work = [](int32_t worker, void* context) {
      auto* shared = static_cast<Shared*>(context);
      int wrong = 0;
      for (int stage = 1; stage <= 5; ++stage) {
        shared->cells[worker] = stage;
        shared->team->Barrier(worker);
        for (int i = 0; i < shared->num_workers; ++i) wrong += shared->cells[i] != stage;
        shared->team->Barrier(worker);
      }
      return wrong;
    };
    if (team.Run(shared.num_workers, work, &shared) != 0) return false;
  }
  return true;
}

// Batches of all sizes, begun and finished at once or after a while: each job is done once, and
// what it wrote can be read after Finish.
bool RunWorker() {
  Worker worker("stress-worker");
  for (int round = 0; round < 3000; ++round) {
    std::vector<int> done(round % 17, 0);
    worker.Begin(static_cast<int32_t>(done.size()), [&done](int32_t job) { ++done[job]; });
    if (round % 3 == 0) std::this_thread::yield();
    worker.Finish();
    for (int times : done) {
      if (times != 1) return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace cupola

int main() {
  if (!cupola::RunWorker()) {
    std::fputs("a worker left a job undone or did it twice\n", stderr);
    return 1;
  }
  for (int num_threads = 1; num_threads <= 4; ++num_threads) {
    for (int64_t spin_ns : {0, 100000}) {
      if (cupola::RunTeam(num_threads, spin_ns)) continue;
      std::fprintf(stderr, "a team of %d: a barrier let a worker through\n", num_threads);
      return 1;
    }
  }
  for (int round = 0; round < 6; ++round) {
    const int64_t fail_at_step = round % 3 == 1 ? 20 : 0;
    const bool close_early = round % 3 == 2;
    if (!cupola::RunOnce(fail_at_step, close_early)) {
      std::fprintf(stderr, "round %d: a request was lost or wrong\n", round);
      return 1;
    }
  }
  std::puts("stress: every barrier held, every request ended once");
  return 0;
}
