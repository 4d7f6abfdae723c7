// A compiled grammar as Python holds it: the beginning that every request clones.
#ifndef CUPOLA_FFI_GRAMMAR_OBJECT_H_
#define CUPOLA_FFI_GRAMMAR_OBJECT_H_

#include <tvm/ffi/object.h>

#include <mutex>
#include <utility>

#include "sampling/grammar.h"

namespace cupola {

class GrammarObj : public tvm::ffi::Object {
 public:
  explicit GrammarObj(Grammar grammar) : grammar(std::move(grammar)) {}

  // Any thread.
  Grammar Clone() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return grammar.Clone();
  }

  mutable Grammar grammar;
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("cupola.Grammar", GrammarObj, tvm::ffi::Object);

 private:
  mutable std::mutex mutex_;
};

class GrammarRef : public tvm::ffi::ObjectRef {
 public:
  explicit GrammarRef(tvm::ffi::ObjectPtr<GrammarObj> object)
      : tvm::ffi::ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(GrammarRef, tvm::ffi::ObjectRef, GrammarObj);
};

GrammarRef MakeGrammar(Grammar grammar);

}  // namespace cupola

#endif  // CUPOLA_FFI_GRAMMAR_OBJECT_H_
