// Doors for tests: the prefix cache and its pool alone, the predictions of the scheduler, and whole
// lives of a scheduler under pressure. cupola.testing.*
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/reflection/registry.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/pace.h"
#include "engine/peak.h"
#include "engine/prefix_cache.h"
#include "engine/scheduler.h"
#include "model/scripted_model.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

std::vector<int32_t> Ints(const ffi::Shape& values) { return {values.begin(), values.end()}; }

// ---- The prefix cache ---------------------------------------------------------------------------

class PrefixCacheObj : public ffi::Object {
 public:
  PrefixCacheObj(int32_t num_pages, int32_t page_size)
      : page_size(page_size), pool(num_pages), cache(page_size, &pool) {}

  // Puts the whole pages of `tokens` into the cache, as long as there are free ones for those that
  // it does not know, and returns the page of each. Nobody holds them afterwards.
  std::vector<int32_t> Put(uint64_t seed, const std::vector<int32_t>& tokens) {
    std::vector<int32_t> pages;
    const int64_t count = static_cast<int64_t>(tokens.size()) / page_size;
    for (int64_t i = 0; i < count && pool.num_free() > 0; ++i) {
      const int32_t fresh = pool.Take();
      const int32_t after = pages.empty() ? PrefixCache::kNoPage : pages.back();
      pages.push_back(cache.Insert(seed, after, tokens.data() + i * page_size, fresh));
      if (pages.back() != fresh) pool.Hold(pages.back());
      if (pages.back() != fresh) pool.Release(fresh);
    }
    for (int32_t page : pages) pool.Release(page);
    return pages;
  }

  void Check() const { pool.Check(holders, cache.CheckedPages()); }

  const int32_t page_size;
  PagePool pool;
  PrefixCache cache;
  std::vector<int32_t> holders = std::vector<int32_t>(pool.num_total(), 0);
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("cupola.testing.PrefixCache", PrefixCacheObj, ffi::Object);
};

class PrefixCacheRef : public ffi::ObjectRef {
 public:
  explicit PrefixCacheRef(ffi::ObjectPtr<PrefixCacheObj> object)
      : ffi::ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(PrefixCacheRef, ffi::ObjectRef, PrefixCacheObj);
};

PrefixCacheRef MakePrefixCache(int64_t num_pages, int64_t page_size) {
  return PrefixCacheRef(ffi::make_object<PrefixCacheObj>(static_cast<int32_t>(num_pages),
                                                         static_cast<int32_t>(page_size)));
}

ffi::Shape Put(PrefixCacheRef self, int64_t seed, ffi::Shape tokens) {
  const std::vector<int32_t> pages = self->Put(static_cast<uint64_t>(seed), Ints(tokens));
  self->Check();
  return ffi::Shape(std::vector<int64_t>(pages.begin(), pages.end()));
}

// The page that agrees longest with the rest or -1, for how many tokens, then the whole pages.
ffi::Shape Find(PrefixCacheRef self, int64_t seed, ffi::Shape tokens) {
  const std::vector<int32_t> wanted = Ints(tokens);
  PrefixCache::Found found;
  self->cache.Find(static_cast<uint64_t>(seed), PrefixCache::kNoPage, wanted.data(),
                   static_cast<int32_t>(wanted.size()), &found);
  self->Check();
  std::vector<int64_t> result{found.partial, found.partial_tokens};
  result.insert(result.end(), found.pages.begin(), found.pages.end());
  return ffi::Shape(result);
}

// Makes somebody hold pages, or (count -1) let them go.
void Hold(PrefixCacheRef self, ffi::Shape pages, int64_t count) {
  for (int64_t page : pages) {
    self->holders[page] += static_cast<int32_t>(count);
    count > 0 ? self->pool.Hold(static_cast<int32_t>(page))
              : self->pool.Release(static_cast<int32_t>(page));
  }
  self->Check();
}

// Pages: free, and cached but held by nobody, after `count` were evicted.
ffi::Shape Evict(PrefixCacheRef self, int64_t count) {
  self->cache.Evict(static_cast<int32_t>(count));
  self->Check();
  return ffi::Shape({self->pool.num_free(), self->pool.num_evictable()});
}

// Nanoseconds that it takes to look up each of some prompts of `num_tokens` in a tree of so many
// nodes. Other prompts begin like these and part from them at some page, so that every page of a
// path is a node of its own with many children.
ffi::Shape MeasureFind(int64_t num_nodes, int64_t num_tokens, int64_t page_size,
                       int64_t num_sought) {
  const int64_t pages_each = num_tokens / page_size;
  const int64_t num_pages = 2 * num_nodes + pages_each * num_sought;
  PrefixCacheObj cache(static_cast<int32_t>(num_pages), static_cast<int32_t>(page_size));
  std::mt19937 random(1);
  const auto random_tokens = [&](int64_t count) {
    std::vector<int32_t> tokens(count);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 50000);
    return tokens;
  };
  std::vector<std::vector<int32_t>> trunks;
  for (int64_t i = 0; i < num_sought; ++i) {
    trunks.push_back(random_tokens(pages_each * page_size));
    cache.Put(0, trunks.back());
  }
  for (int64_t i = 0; cache.cache.num_nodes() < num_nodes; ++i) {
    std::vector<int32_t> prompt = trunks[i % num_sought];
    prompt.resize(random() % pages_each * page_size);
    const std::vector<int32_t> own = random_tokens(page_size);
    prompt.insert(prompt.end(), own.begin(), own.end());
    cache.Put(0, prompt);
  }
  std::vector<int64_t> times;
  PrefixCache::Found found;
  for (const std::vector<int32_t>& trunk : trunks) {
    const auto begin = std::chrono::steady_clock::now();
    cache.cache.Find(0, PrefixCache::kNoPage, trunk.data(), static_cast<int32_t>(trunk.size()),
                     &found);
    const auto end = std::chrono::steady_clock::now();
    if (static_cast<int64_t>(found.pages.size()) != pages_each) throw std::logic_error("not found");
    times.push_back(std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count());
  }
  return ffi::Shape(times);
}

// ---- Predictions --------------------------------------------------------------------------------

// Of pairs (held, left).
int64_t Peak(ffi::Shape pairs) {
  std::vector<Load> loads;
  for (size_t i = 0; i < pairs.size(); i += 2) loads.push_back({pairs[i], pairs[i + 1]});
  return PredictPeak(&loads);
}

int64_t PredictOutput(ffi::Shape ended, int64_t generated, int64_t max_tokens) {
  OutputEstimate estimate;
  for (int64_t length : ended) estimate.Record(length);
  return estimate.Predict(generated, max_tokens);
}

// Rows after having seen steps of (rows that generate, rows of prompts, microseconds).
int64_t PrefillRows(int64_t fixed_rows, ffi::Shape steps, int64_t decode_rows, int64_t most) {
  Pace pace(static_cast<int32_t>(fixed_rows));
  for (size_t i = 0; i < steps.size(); i += 3) {
    pace.Observe(static_cast<int32_t>(steps[i]), static_cast<int32_t>(steps[i + 1]),
                 static_cast<double>(steps[i + 2]) * 1e-6);
  }
  return pace.PrefillRows(static_cast<int32_t>(decode_rows), static_cast<int32_t>(most));
}

// ---- Storms -------------------------------------------------------------------------------------

constexpr int32_t kVocabSize = 64;
constexpr int32_t kStopId = 7;

// One life of a scheduler whose pool is five times too small for what is asked of it.
class Storm {
 public:
  explicit Storm(uint64_t seed) : random_(seed), scheduler_(LimitsOf(&random_)) {}

  void Run() {
    Script script;
    script.vocab_size = kVocabSize;
    script.num_ids = kVocabSize;
    script.page_size = limits_.page_size;
    script.window = limits_.window;
    ScriptedModel model(script);
    model.Start(limits_.num_pages, limits_.num_window_pages, {});
    for (int64_t demand = 0; demand < 5 * limits_.num_pages;) demand += Plan();
    // Whoever is first in rank moves on by a token a step, and by more in the end.
    for (int64_t step = 0; !scheduler_.idle() || next_ < requests_.size(); ++step) {
      if (step > 100000) throw std::logic_error("storm: somebody starves");
      for (int64_t i = Draw(4); i > 0 && next_ < requests_.size(); --i) Add();
      if (Draw(20) == 0) Abort();
      if (!scheduler_.idle()) Step(&model, Draw(200) == 0);
    }
    for (const auto& [id, expected] : expected_) {
      if (!expected.ended) throw std::logic_error("storm: a request never ended");
    }
  }

  const SchedulerCounters& counters() const { return scheduler_.counters(); }
  const PageLedger& ledger() const { return scheduler_.ledger(); }

 private:
  struct Expected {
    std::vector<int32_t> tokens;  // greedy, alone
    FinishReason reason = FinishReason::kLength;
    size_t got = 0;
    bool ended = false;
  };

  int64_t Draw(int64_t below) { return static_cast<int64_t>(random_() % below); }

  Limits LimitsOf(std::mt19937_64* random) {
    const auto draw = [random](int64_t low, int64_t high) {
      return static_cast<int32_t>(low + (*random)() % (high - low + 1));
    };
    limits_.page_size = draw(0, 1) == 0 ? 4 : 16;
    limits_.num_pages = draw(6, 60);
    limits_.max_batch = draw(1, 24);
    limits_.max_step_tokens = draw(1, 64);
    limits_.max_context = limits_.page_size * limits_.num_pages;
    limits_.foresight = static_cast<Foresight>(draw(0, 2));
    limits_.prefix_cache = draw(0, 5) != 0;
    limits_.prefill_rows = draw(0, 1) * draw(1, 16);
    if (draw(0, 1) == 0) return limits_;
    limits_.window = draw(1, 3 * limits_.page_size);
    const int64_t most = limits_.MostWindowPages() + draw(0, 8);
    limits_.num_window_pages = static_cast<int32_t>(std::min<int64_t>(limits_.num_pages, most));
    return limits_;
  }

  // Invents a request; returns the pages that it will need.
  int64_t Plan() {
    auto request = std::make_unique<Request>();
    request->id = static_cast<int64_t>(requests_.size());
    request->priority = static_cast<int32_t>(Draw(3));
    request->cache_seed = static_cast<uint64_t>(Draw(5) == 0);
    request->pin_prefix = Draw(12) == 0;
    if (Draw(3) > 0) request->stop_ids = {kStopId};
    const int64_t most = std::min(limits_.max_context - 1, 240);
    request->max_tokens = static_cast<int32_t>(request->pin_prefix ? 0 : 1 + Draw(most / 2));
    // Few beginnings and few tokens, so that much is shared and parts in all places.
    const int64_t length = 1 + Draw(most - request->max_tokens);
    const int64_t beginning = Draw(3);
    const int64_t common = Draw(2) * Draw(length);
    for (int64_t i = 0; i < length; ++i) {
      const int64_t token = i < common ? (i * 7 + beginning) % kVocabSize : Draw(kVocabSize);
      request->tokens.push_back(static_cast<int32_t>(token));
    }
    if (Draw(4) == 0 && !requests_.empty()) request->tokens = requests_.back()->tokens;
    request->num_prompt = request->num_tokens();
    if (!Scheduler::CanEverFit(limits_, request->num_prompt, request->max_tokens)) return 0;
    const int64_t pages = limits_.PagesFor(request->max_cached_tokens());
    requests_.push_back(std::move(request));
    return pages;
  }

  void Add() {
    std::unique_ptr<Request> request = std::make_unique<Request>(*requests_[next_++]);
    Expected& expected = expected_[request->id];
    std::vector<int32_t> history = request->tokens;
    while (static_cast<int32_t>(expected.tokens.size()) < request->max_tokens) {
      uint32_t hash = 2166136261U;
      for (int32_t token : history) hash = (hash ^ static_cast<uint32_t>(token)) * 16777619U;
      const int32_t token = static_cast<int32_t>((hash >> 16) % kVocabSize);
      if (request->IsStopId(token)) {
        expected.reason = FinishReason::kStop;
        break;
      }
      expected.tokens.push_back(token);
      history.push_back(token);
    }
    scheduler_.Add(std::move(request));
  }

  void Abort() {
    DeltaBatch out;
    scheduler_.Abort(Draw(static_cast<int64_t>(requests_.size())), &out);
    Read(out);
    Check();
  }

  void Step(ScriptedModel* model, bool fails) {
    DeltaBatch out;
    const StepPlan& plan = scheduler_.Schedule();
    if (plan.empty()) throw std::logic_error("storm: requests wait, but none can run");
    Check();
    if (fails) {
      scheduler_.FailStep("failed on purpose", &out);
    } else {
      model->CopyPages(plan.copies);
      BuildStepInput(plan, limits_.page_size, ledger().window(), &input_);
      const LogitsView logits = model->Forward(input_);
      std::vector<Sampled> sampled(plan.sequences.size());
      int64_t row = 0;
      for (size_t i = 0; i < sampled.size(); ++i) {
        if (!plan.sequences[i].samples) continue;
        const float* values = logits.row(row++);
        sampled[i].token =
            static_cast<int32_t>(std::max_element(values, values + kVocabSize) - values);
      }
      scheduler_.Commit(sampled, &out);
      if (limits_.foresight == Foresight::kConservative && counters().preemptions > 0) {
        throw std::logic_error("storm: a conservative scheduler has preempted");
      }
    }
    Read(out);
    Check();
  }

  void Read(const DeltaBatch& out) {
    auto token = out.tokens.begin();
    for (const DeltaBatch::Delta& delta : out.deltas) {
      Expected& expected = expected_.at(delta.request_id);
      if (expected.ended) throw std::logic_error("storm: a delta after the end");
      for (int32_t i = 0; i < delta.num_tokens; ++i) {
        if (expected.got >= expected.tokens.size() || *token++ != expected.tokens[expected.got++]) {
          throw std::logic_error("storm: a wrong token");
        }
      }
      if (delta.finish == FinishReason::kNone) continue;
      expected.ended = true;
      const bool by_itself =
          delta.finish == FinishReason::kStop || delta.finish == FinishReason::kLength;
      if (by_itself &&
          (delta.finish != expected.reason || expected.got != expected.tokens.size())) {
        throw std::logic_error("storm: a request ended too early");
      }
    }
  }

  void Check() const {
    scheduler_.CheckIntegrity();
    const PagePool& pool = scheduler_.pool();
    if (pool.num_free() + pool.num_evictable() + pool.num_held() != pool.num_total()) {
      throw std::logic_error("storm: pages are lost");
    }
  }

  std::mt19937_64 random_;
  Limits limits_;
  Scheduler scheduler_;
  StepInput input_;
  std::vector<std::unique_ptr<Request>> requests_;
  size_t next_ = 0;
  std::unordered_map<int64_t, Expected> expected_;
};

// Runs the seeds from `first` on; throws what went wrong. The sums of all: requests that ended by
// themselves, preemptions, tokens found in the cache, pages evicted.
ffi::Shape RunStorms(int64_t first, int64_t count) {
  int64_t finished = 0, preemptions = 0, hits = 0, evicted = 0;
  for (int64_t seed = first; seed < first + count; ++seed) {
    Storm storm(static_cast<uint64_t>(seed));
    try {
      storm.Run();
    } catch (const std::exception& error) {
      throw std::logic_error("seed " + std::to_string(seed) + ": " + error.what());
    }
    finished += storm.counters().finished;
    preemptions += storm.counters().preemptions;
    hits += storm.ledger().counters().hit_tokens;
    evicted += storm.ledger().num_evicted();
  }
  return ffi::Shape({finished, preemptions, hits, evicted});
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::ObjectDef<PrefixCacheObj>();
  refl::GlobalDef()
      .def("cupola.testing.prefix_cache", MakePrefixCache)
      .def("cupola.testing.prefix_put", Put)
      .def("cupola.testing.prefix_find", Find)
      .def("cupola.testing.prefix_hold", Hold)
      .def("cupola.testing.prefix_evict", Evict)
      .def("cupola.testing.measure_find", MeasureFind)
      .def("cupola.testing.peak", Peak)
      .def("cupola.testing.predict_output", PredictOutput)
      .def("cupola.testing.prefill_rows", PrefillRows)
      .def("cupola.testing.storms", RunStorms);
}

}  // namespace cupola
