// Encoders and their runner as Python sees them: cupola.encoder.*, cupola.embedder.*
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/container/tuple.h>
#include <tvm/ffi/reflection/registry.h>

#include <memory>
#include <string>
#include <utility>

#include "engine/embedder.h"
#include "ffi/objects.h"
#include "model/compiled_encoder.h"
#include "model/scripted_encoder.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

class EncoderObj : public ffi::Object {
 public:
  explicit EncoderObj(std::shared_ptr<Encoder> encoder) : encoder(std::move(encoder)) {}
  const std::shared_ptr<Encoder> encoder;
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("cupola.Encoder", EncoderObj, ffi::Object);
};

class EncoderRef : public ffi::ObjectRef {
 public:
  explicit EncoderRef(ffi::ObjectPtr<EncoderObj> object) : ffi::ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(EncoderRef, ffi::ObjectRef, EncoderObj);
};

class EmbedderObj : public ffi::Object {
 public:
  EmbedderObj(const EncoderRef& encoder, const EmbedderOptions& options)
      : embedder(encoder->encoder, options) {}
  Embedder embedder;
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("cupola.Embedder", EmbedderObj, ffi::Object);
};

class EmbedderRef : public ffi::ObjectRef {
 public:
  explicit EmbedderRef(ffi::ObjectPtr<EmbedderObj> object) : ffi::ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(EmbedderRef, ffi::ObjectRef, EmbedderObj);
};

EncoderRef MakeCompiled(ffi::String library, DLDevice device, ffi::String embed_name,
                        int64_t vocab_size, int64_t num_types, int64_t dimensions,
                        int64_t max_context, int64_t max_step_tokens, int64_t max_batch,
                        ffi::Array<ffi::Tensor> weights) {
  EncoderInfo info;
  info.num_types = static_cast<int32_t>(num_types);
  info.vocab_size = static_cast<int32_t>(vocab_size);
  info.dimensions = static_cast<int32_t>(dimensions);
  info.max_context = static_cast<int32_t>(max_context);
  info.max_step_tokens = static_cast<int32_t>(max_step_tokens);
  info.max_batch = static_cast<int32_t>(max_batch);
  return EncoderRef(ffi::make_object<EncoderObj>(
      std::make_shared<CompiledEncoder>(library, device, embed_name, info, std::move(weights))));
}

EncoderRef MakeScripted(int64_t vocab_size, int64_t dimensions, int64_t max_context,
                        int64_t max_step_tokens, int64_t max_batch, int64_t poison_id,
                        int64_t fail_id, int64_t step_us) {
  EncoderScript script;
  script.dimensions = static_cast<int32_t>(dimensions);
  script.vocab_size = static_cast<int32_t>(vocab_size);
  script.max_context = static_cast<int32_t>(max_context);
  script.max_step_tokens = static_cast<int32_t>(max_step_tokens);
  script.max_batch = static_cast<int32_t>(max_batch);
  script.poison_id = static_cast<int32_t>(poison_id);
  script.fail_id = static_cast<int32_t>(fail_id);
  script.step_us = step_us;
  return EncoderRef(ffi::make_object<EncoderObj>(std::make_shared<ScriptedEncoder>(script)));
}

EmbedderRef MakeEmbedder(EncoderRef encoder, int64_t max_queue, int64_t num_threads,
                         bool bind_threads, int64_t spin_us) {
  EmbedderOptions options;
  options.max_queue = static_cast<int32_t>(max_queue);
  options.threads = {static_cast<int32_t>(num_threads), bind_threads, spin_us * 1000};
  return EmbedderRef(ffi::make_object<EmbedderObj>(encoder, options));
}

int64_t Add(EmbedderRef embedder, int64_t id, ffi::Bytes tokens, ffi::Bytes types,
            ffi::Bytes offsets) {
  return static_cast<int64_t>(
      embedder->embedder.Add({id, DecodeInt32(tokens), DecodeInt32(types), DecodeInt32(offsets)}));
}

// Of each job its id, how it ended, its error, and the bytes of its vectors.
using Result = ffi::Tuple<int64_t, int64_t, ffi::String, ffi::Bytes>;

ffi::Array<Result> Take(EmbedderRef embedder) {
  ffi::Array<Result> results;
  for (const EmbedResult& result : embedder->embedder.Take()) {
    const ffi::Bytes vectors(reinterpret_cast<const char*>(result.vectors.data()),
                             result.vectors.size() * sizeof(float));
    results.push_back(
        Result(result.id, static_cast<int64_t>(result.end), ffi::String(result.error), vectors));
  }
  return results;
}

// running, waiting, steps, tokens, finished, aborted, failed; the times are seconds.
ffi::Tuple<ffi::Bytes, double, double> Stats(EmbedderRef embedder) {
  const EmbedderStats stats = embedder->embedder.stats();
  return ffi::Tuple<ffi::Bytes, double, double>(
      EncodeInt64({stats.running, stats.waiting, stats.steps, stats.counters.tokens,
                   stats.counters.finished, stats.counters.aborted, stats.counters.failed}),
      stats.step_seconds, stats.last_step_age);
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::ObjectDef<EncoderObj>();
  refl::ObjectDef<EmbedderObj>();
  refl::GlobalDef()
      .def("cupola.encoder.compiled", MakeCompiled)
      .def("cupola.encoder.scripted", MakeScripted)
      .def("cupola.embedder.create", MakeEmbedder)
      .def("cupola.embedder.add", Add)
      .def("cupola.embedder.abort", [](EmbedderRef self, int64_t id) { self->embedder.Abort(id); })
      .def("cupola.embedder.take", Take)
      .def("cupola.embedder.stats", Stats)
      .def("cupola.embedder.event_fd",
           [](EmbedderRef self) -> int64_t { return self->embedder.output_fd(); })
      .def("cupola.embedder.alive", [](EmbedderRef self) { return self->embedder.alive(); })
      .def("cupola.embedder.failure",
           [](EmbedderRef self) { return ffi::String(self->embedder.failure()); })
      .def("cupola.embedder.drain", [](EmbedderRef self) { self->embedder.Drain(); })
      .def("cupola.embedder.close", [](EmbedderRef self) { self->embedder.Close(); });
}

}  // namespace cupola
