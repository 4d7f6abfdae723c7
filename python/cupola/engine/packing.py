"""Requests as one packed value, the way `cpp/ffi/engine_ffi.cc` reads them: field after field, in one order.

A field more is one line here and one line there. It knows the layout only; ranges are checked by others before.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import cast

from cupola.engine.request import GenerateRequest
from cupola.errors import RequestError

_WORD = 0xFFFF_FFFF_FFFF_FFFF


def pack_request(request: GenerateRequest) -> bytes:
    """A request whose seed and max_tokens are resolved.

    Raises:
        RequestError: a token id does not fit 32 bits.
    """
    sampling = request.sampling
    return b"".join(
        (
            _int(request.id),
            _int(request.priority),
            _ints(request.token_ids),
            _ints(request.stop_token_ids),
            _int(cast(int, sampling.max_tokens)),
            _int(sampling.min_tokens),
            _float(sampling.temperature),
            _int(sampling.top_k),
            _float(sampling.top_p),
            _float(sampling.min_p),
            _word(cast(int, sampling.seed)),
        )
    )


def _int(value: int) -> bytes:
    return struct.pack("<q", value)


def _word(value: int) -> bytes:
    """The 64 low bits, whatever the sign."""
    return struct.pack("<Q", value & _WORD)


def _float(value: float) -> bytes:
    return struct.pack("<d", value)


def _ints(values: Sequence[int]) -> bytes:
    try:
        return _int(len(values)) + array("i", values).tobytes()
    except OverflowError as error:
        raise RequestError("a token id does not fit 32 bits", param="prompt") from error
