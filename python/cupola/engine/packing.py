"""Requests and deltas as packed values, the way `cpp/ffi/engine_ffi.cc` reads and writes them.

A request is field after field, in one order: a field more is one line here and one line there. It knows layouts
only; ranges are checked by others before.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import cast

from cupola.engine.request import (
    Delta,
    FinishReason,
    GenerateRequest,
    PositionLogprobs,
    ThinkingLimit,
    TokenLogprob,
)
from cupola.errors import RequestError

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_NONE, _NEVER = -1, 2**31 - 1
_DELTA_WORDS = 7  # before its tokens
_FINISH_REASONS = (
    None,
    FinishReason.STOP,
    FinishReason.LENGTH,
    FinishReason.ABORT,
    FinishReason.ERROR,
    FinishReason.DEADLINE,
    FinishReason.REFUSED,
)
_LOGPROB = struct.Struct("<ifi")


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
            _float(sampling.presence_penalty),
            _float(sampling.frequency_penalty),
            _float(sampling.repetition_penalty),
            _ints(tuple(sampling.logit_bias)),
            _floats(tuple(sampling.logit_bias.values())),
            _ints(sampling.allowed_token_ids),
            _lists(request.bad_words),
            _int(_NONE if sampling.logprobs is None else sampling.logprobs),
            _int(sampling.prompt_logprobs or 0),
            _int(_NEVER if request.logprobs_from is None else request.logprobs_from),
            _word(request.cache_seed),
            _int(request.pin_prefix),
            _int(0 if request.deadline is None else int(request.deadline * 1e9)),
            _thinking(sampling.thinking_limit),
        )
    )


def _thinking(limit: ThinkingLimit | None) -> bytes:
    if limit is None:
        return _ints(()) + _int(_NONE) + _int(0) + _int(False)
    return _ints(limit.open) + _int(limit.close) + _int(limit.budget) + _int(limit.begun)


def _int(value: int) -> bytes:
    return struct.pack("<q", value)


def signed_word(value: int) -> int:
    """The 64 low bits as a signed number, which is what passes through the FFI by itself."""
    return cast(int, struct.unpack("<q", _word(value))[0])


def _word(value: int) -> bytes:
    """The 64 low bits, whatever the sign."""
    return struct.pack("<Q", value & _WORD)


def _float(value: float) -> bytes:
    return struct.pack("<d", value)


def _floats(values: Sequence[float]) -> bytes:
    return _int(len(values)) + array("f", values).tobytes()


def _lists(lists: Sequence[Sequence[int]]) -> bytes:
    return _int(len(lists)) + b"".join(map(_ints, lists))


def _ints(values: Sequence[int]) -> bytes:
    try:
        return _int(len(values)) + array("i", values).tobytes()
    except OverflowError as error:
        raise RequestError("a token id does not fit 32 bits", param="prompt") from error


def unpack_deltas(words: bytes, logprobs: bytes, errors: Sequence[str]) -> Iterator[Delta]:
    """What the engine published, oldest first; the layout is at `Take` in the C++ file."""
    numbers = memoryview(words).cast("q").tolist()
    entries = [TokenLogprob(*entry) for entry in _LOGPROB.iter_unpack(logprobs)]
    at = entry = 0
    while at < len(numbers):
        request_id, finish, error, num_cached, num_scored, num_logprobs, count = numbers[at : at + _DELTA_WORDS]
        at += _DELTA_WORDS + count
        positions: tuple[PositionLogprobs, ...] = ()
        prompt_positions: tuple[PositionLogprobs, ...] = ()
        if num_logprobs:
            found = entries[entry : entry + num_logprobs]
            entry += num_logprobs
            if num_scored:
                prompt_positions = _positions(found, num_scored)
            else:
                positions = _positions(found, max(1, count))  # without a token: of the stop id
        yield Delta(
            request_id,
            tuple(numbers[at - count : at]),
            _FINISH_REASONS[finish],
            str(errors[error]) if error >= 0 else None,
            positions,
            prompt_positions,
            None if num_cached < 0 else num_cached,
        )


def _positions(entries: list[TokenLogprob], count: int) -> tuple[PositionLogprobs, ...]:
    """The entries of `count` positions, all of the same length."""
    width = len(entries) // count
    return tuple(tuple(entries[i : i + width]) for i in range(0, len(entries), width))
