// The objects that Python holds. Only this folder knows how Python sees the engine.
#ifndef CUPOLA_FFI_OBJECTS_H_
#define CUPOLA_FFI_OBJECTS_H_

#include <tvm/ffi/object.h>
#include <tvm/ffi/string.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "model/model.h"
#include "sampling/sampled.h"

namespace cupola {

// A model that an engine can be made of.
class ModelObj : public tvm::ffi::Object {
 public:
  explicit ModelObj(std::shared_ptr<Model> model) : model(std::move(model)) {}
  const std::shared_ptr<Model> model;
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("cupola.Model", ModelObj, tvm::ffi::Object);
};

class ModelRef : public tvm::ffi::ObjectRef {
 public:
  explicit ModelRef(tvm::ffi::ObjectPtr<ModelObj> object)
      : tvm::ffi::ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(ModelRef, tvm::ffi::ObjectRef, ModelObj);
};

// Integers pass as the bytes of an array: one copy, however many.
inline std::vector<int32_t> DecodeInt32(const tvm::ffi::Bytes& bytes) {
  std::vector<int32_t> values(bytes.size() / sizeof(int32_t));
  if (values.empty()) return values;  // memcpy takes no null pointer, not even for nothing
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(int32_t));
  return values;
}

inline tvm::ffi::Bytes EncodeInt64(const std::vector<int64_t>& values) {
  return tvm::ffi::Bytes(reinterpret_cast<const char*>(values.data()),
                         values.size() * sizeof(int64_t));
}

inline tvm::ffi::Bytes EncodeDoubles(const std::vector<double>& values) {
  return tvm::ffi::Bytes(reinterpret_cast<const char*>(values.data()),
                         values.size() * sizeof(double));
}

inline tvm::ffi::Bytes EncodeLogprobs(const TokenLogprobs& logprobs) {
  return tvm::ffi::Bytes(reinterpret_cast<const char*>(logprobs.data()),
                         logprobs.size() * sizeof(TokenLogprob));
}

}  // namespace cupola

#endif  // CUPOLA_FFI_OBJECTS_H_
