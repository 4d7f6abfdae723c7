// Statements to instructions.
#ifndef CUPOLA_TESTS_PTX_DECODER_H_
#define CUPOLA_TESTS_PTX_DECODER_H_

#include <string>

#include "program.h"
#include "syntax.h"

namespace ptx {

// One kernel of a module, with the functions that it calls. Throws std::runtime_error naming line
// and instruction.
Kernel Decode(const syntax::Module& module, const syntax::Function& entry,
              const std::map<std::string, Module::Variable>& variables);

}  // namespace ptx

#endif  // CUPOLA_TESTS_PTX_DECODER_H_
