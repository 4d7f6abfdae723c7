// Grammars as Python makes them: cupola.grammar.*, and doors for their tests: cupola.testing.*
#include <tvm/ffi/reflection/registry.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ffi/grammar_object.h"
#include "ffi/objects.h"

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

class GrammarTokenizerObj : public ffi::Object {
 public:
  explicit GrammarTokenizerObj(std::shared_ptr<const GrammarTokenizer> tokenizer)
      : tokenizer(std::move(tokenizer)) {}
  const std::shared_ptr<const GrammarTokenizer> tokenizer;
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("cupola.GrammarTokenizer", GrammarTokenizerObj, ffi::Object);
};

class GrammarTokenizerRef : public ffi::ObjectRef {
 public:
  explicit GrammarTokenizerRef(ffi::ObjectPtr<GrammarTokenizerObj> object)
      : ffi::ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(GrammarTokenizerRef, ffi::ObjectRef,
                                                GrammarTokenizerObj);
};

std::vector<uint32_t> DecodeWords(const ffi::Bytes& bytes) {
  std::vector<uint32_t> words(bytes.size() / sizeof(uint32_t));
  std::copy_n(bytes.data(), words.size() * sizeof(uint32_t), reinterpret_cast<char*>(words.data()));
  return words;
}

// `lengths`: of each token of the vocabulary in `bytes`, where they lie one after the other.
GrammarTokenizerRef MakeTokenizer(ffi::String library, ffi::Bytes lengths, ffi::Bytes bytes,
                                  ffi::Bytes eos_ids, int64_t spelling) {
  std::vector<std::string_view> tokens;
  const std::string_view all(bytes.data(), bytes.size());
  size_t begin = 0;
  for (uint32_t length : DecodeWords(lengths)) {
    tokens.push_back(all.substr(begin, length));
    begin += length;
  }
  return GrammarTokenizerRef(
      ffi::make_object<GrammarTokenizerObj>(std::make_shared<const GrammarTokenizer>(
          LoadLlguidance(library), tokens, DecodeWords(eos_ids), static_cast<Spelling>(spelling))));
}

GrammarRef Compile(GrammarTokenizerRef tokenizer, ffi::String kind, ffi::String text) {
  try {
    return MakeGrammar(Grammar(tokenizer->tokenizer, kind, text));
  } catch (const std::invalid_argument& error) {
    TVM_FFI_THROW(ValueError) << error.what();
    throw;
  }
}

ffi::Bytes FillMask(GrammarRef grammar) {
  TokenMask mask;
  if (!grammar->grammar.FillMask(&mask)) {
    TVM_FFI_THROW(ValueError) << grammar->grammar.error();
  }
  return ffi::Bytes(reinterpret_cast<const char*>(mask.data()), mask.size() * sizeof(uint32_t));
}

ffi::Bytes EncodeIds(const std::vector<int32_t>& ids) {
  return EncodeInt64(std::vector<int64_t>(ids.begin(), ids.end()));
}

}  // namespace

GrammarRef MakeGrammar(Grammar grammar) {
  return GrammarRef(ffi::make_object<GrammarObj>(std::move(grammar)));
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::ObjectDef<GrammarTokenizerObj>();
  refl::ObjectDef<GrammarObj>();
  refl::GlobalDef()
      .def("cupola.grammar.tokenizer", MakeTokenizer)
      .def("cupola.grammar.compile", Compile)
      .def("cupola.testing.grammar_encode",
           [](GrammarTokenizerRef tokenizer, ffi::Bytes text) {
             return EncodeIds(tokenizer->tokenizer->Encode({text.data(), text.size()}));
           })
      .def("cupola.testing.grammar_clone",
           [](GrammarRef grammar) { return MakeGrammar(grammar->Clone()); })
      .def("cupola.testing.grammar_mask", FillMask)
      .def("cupola.testing.grammar_accept",
           [](GrammarRef grammar, int64_t token) {
             return grammar->grammar.Accept(static_cast<int32_t>(token));
           })
      .def("cupola.testing.grammar_forced",
           [](GrammarRef grammar, int64_t capacity) {
             return EncodeIds(grammar->grammar.ForcedTokens(static_cast<int32_t>(capacity)));
           })
      .def("cupola.testing.grammar_accepting",
           [](GrammarRef grammar) { return grammar->grammar.IsAccepting(); })
      .def("cupola.testing.grammar_stopped",
           [](GrammarRef grammar) { return grammar->grammar.IsStopped(); });
}

}  // namespace cupola
