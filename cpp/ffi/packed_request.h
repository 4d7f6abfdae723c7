// A request as Python packs it (python/cupola/engine/packing.py): values one after the other, in
// the order in which both sides name them.
#ifndef CUPOLA_FFI_PACKED_REQUEST_H_
#define CUPOLA_FFI_PACKED_REQUEST_H_

#include <tvm/ffi/string.h>

#include <memory>

#include "engine/request.h"

namespace cupola {

// Throws std::logic_error when the two sides do not name the same fields.
std::unique_ptr<Request> ReadRequest(const tvm::ffi::Bytes& packed);

}  // namespace cupola

#endif  // CUPOLA_FFI_PACKED_REQUEST_H_
