// The engine as Python sees it: cupola.engine.*
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tuple.h>
#include <tvm/ffi/reflection/registry.h>

#include <algorithm>
#include <string>

#include "ffi/grammar_object.h"
#include "ffi/objects.h"
#include "ffi/packed_request.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

class EngineObj : public ffi::Object {
 public:
  EngineObj(const ModelRef& model, const EngineOptions& options) : engine(model->model, options) {}
  Engine engine;
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("cupola.Engine", EngineObj, ffi::Object);
};

class EngineRef : public ffi::ObjectRef {
 public:
  explicit EngineRef(tvm::ffi::ObjectPtr<EngineObj> object) : ffi::ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(EngineRef, ffi::ObjectRef, EngineObj);
};

EngineRef MakeEngine(ModelRef model, int64_t num_pages, int64_t num_window_pages, int64_t max_batch,
                     int64_t max_step_tokens, int64_t max_context, int64_t max_queue,
                     int64_t num_threads, bool bind_threads, int64_t spin_us, bool prefix_cache,
                     int64_t foresight, int64_t prefill_rows, bool check_every_step) {
  const ModelInfo& info = model->model->info();
  EngineOptions options;
  options.limits.num_pages = static_cast<int32_t>(num_pages);
  options.limits.page_size = info.page_size;
  options.limits.window = info.window;
  options.limits.num_window_pages = static_cast<int32_t>(num_window_pages);
  options.limits.max_batch = std::min(static_cast<int32_t>(max_batch), info.max_batch);
  options.limits.max_step_tokens =
      std::min(static_cast<int32_t>(max_step_tokens), info.max_step_tokens);
  options.limits.max_context = static_cast<int32_t>(max_context);
  options.limits.max_logit_rows = info.max_batch;
  options.limits.prefix_cache = prefix_cache;
  options.limits.foresight = static_cast<Foresight>(foresight);
  options.limits.prefill_rows = static_cast<int32_t>(prefill_rows);
  options.max_queue = static_cast<int32_t>(max_queue);
  options.threads = {static_cast<int32_t>(num_threads), bind_threads, spin_us * 1000};
  options.check_every_step = check_every_step;
  return EngineRef(ffi::make_object<EngineObj>(model, options));
}

int64_t Add(EngineRef engine, ffi::Bytes packed, ffi::Optional<GrammarRef> grammar) {
  std::unique_ptr<Request> request = ReadRequest(packed);
  if (grammar.has_value()) {
    request->grammar = std::make_shared<Grammar>(grammar.value()->Clone());
  }
  return static_cast<int64_t>(engine->engine.Add(std::move(request)));
}

// (words, log-probabilities, errors). Words: for each delta its request id, finish reason, index of
// its error or -1, number of tokens of its prompt that were cached or -1, number of scored
// positions, number of log-probabilities, number of tokens, and the tokens. Log-probabilities are
// the bytes of TokenLogprob, those of all deltas in a row.
using Output = ffi::Tuple<ffi::Bytes, ffi::Bytes, ffi::Array<ffi::String>>;

Output Take(EngineRef engine) {
  const DeltaBatch batch = engine->engine.Take();
  std::vector<int64_t> words;
  words.reserve(batch.deltas.size() * 8);
  auto token = batch.tokens.begin();
  for (const DeltaBatch::Delta& delta : batch.deltas) {
    words.insert(words.end(),
                 {delta.request_id, static_cast<int64_t>(delta.finish), delta.error_index,
                  delta.num_cached, delta.num_scored, delta.num_logprobs, delta.num_tokens});
    words.insert(words.end(), token, token + delta.num_tokens);
    token += delta.num_tokens;
  }
  ffi::Array<ffi::String> errors;
  for (const std::string& error : batch.errors) errors.push_back(error);
  return Output(EncodeInt64(words), EncodeLogprobs(batch.logprobs), errors);
}

// In the order of the fields of EngineStats in Python; the times are seconds.
using StatsTuple = ffi::Tuple<ffi::Bytes, double, double>;

StatsTuple Stats(EngineRef engine) {
  const EngineStats stats = engine->engine.stats();
  const SchedulerCounters& counters = stats.counters;
  return StatsTuple(
      EncodeInt64({stats.running, stats.waiting, stats.pages_total, stats.pages_free, stats.steps,
                   counters.preemptions, counters.prompt_tokens, counters.generated_tokens,
                   counters.finished, counters.aborted, counters.failed, counters.expired,
                   stats.pages_cached, stats.pages_pinned, stats.prefix.queried_tokens,
                   stats.prefix.hit_tokens, stats.evictions}),
      stats.step_seconds, engine->engine.last_step_age());
}

// Of each histogram its name, its bounds (float64), its counts (int64), and the sum of its values.
using HistogramTuple = ffi::Tuple<ffi::String, ffi::Bytes, ffi::Bytes, double>;

ffi::Array<HistogramTuple> Histograms(EngineRef engine) {
  const StepHistograms histograms = engine->engine.histograms();
  const auto encoded = [](const char* name, const Histogram& histogram) {
    return HistogramTuple(name, EncodeDoubles(histogram.bounds()), EncodeInt64(histogram.counts()),
                          histogram.sum());
  };
  return {encoded("queue_seconds", histograms.queue_seconds),
          encoded("prefill_seconds", histograms.prefill_seconds),
          encoded("inter_token_seconds", histograms.inter_token_seconds),
          encoded("step_tokens", histograms.step_tokens)};
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::ObjectDef<EngineObj>();
  refl::GlobalDef()
      .def("cupola.engine.create", MakeEngine)
      .def("cupola.engine.add", Add)
      .def("cupola.engine.abort", [](EngineRef engine, int64_t id) { engine->engine.Abort(id); })
      .def("cupola.engine.unpin",
           [](EngineRef engine, int64_t seed, ffi::Bytes tokens) {
             engine->engine.Unpin(static_cast<uint64_t>(seed), DecodeInt32(tokens));
           })
      .def("cupola.engine.take", Take)
      .def("cupola.engine.stats", Stats)
      .def("cupola.engine.histograms", Histograms)
      .def("cupola.engine.event_fd",
           [](EngineRef engine) -> int64_t { return engine->engine.output_fd(); })
      .def("cupola.engine.alive", [](EngineRef engine) { return engine->engine.alive(); })
      .def("cupola.engine.failure",
           [](EngineRef engine) { return ffi::String(engine->engine.failure()); })
      .def("cupola.engine.drain", [](EngineRef engine) { engine->engine.Drain(); })
      .def("cupola.engine.close", [](EngineRef engine) { engine->engine.Close(); });
}

}  // namespace cupola
