"""From a request's fields to the engine's SamplingParams. Knows both vocabularies, and no endpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from cupola.engine.request import SamplingParams
from cupola.protocol.generation import GenerationFields

Value = TypeVar("Value")

_LEAST_TOP_P = 1e-6  # OpenAI allows top_p = 0 (the likeliest token only); the engine wants a positive number


def choice_sampling(request: GenerationFields, defaults: SamplingParams) -> tuple[SamplingParams, ...]:
    """One for each of the `n` choices: they differ in their seeds, `seed + i`, and in nothing else.

    Args:
        request: what the client gave.
        defaults: for what it did not give; the model's own.
    """
    common = _sampling(request, defaults)
    if request.seed is None:
        return (common,) * (request.n or 1)
    return tuple(replace(common, seed=_wrapped(request.seed + i)) for i in range(request.n or 1))


def _sampling(request: GenerationFields, defaults: SamplingParams) -> SamplingParams:
    return replace(
        defaults,
        temperature=_given(request.temperature, defaults.temperature),
        top_k=max(0, _given(request.top_k, defaults.top_k)),
        top_p=max(_LEAST_TOP_P, _given(request.top_p, defaults.top_p)),
        min_p=_given(request.min_p, defaults.min_p),
        max_tokens=_given(request.token_limit, defaults.max_tokens),
        min_tokens=_given(request.min_tokens, defaults.min_tokens),
        stop=_given(request.stop, defaults.stop),
        stop_token_ids=_given(request.stop_token_ids, defaults.stop_token_ids),
        ignore_eos=_given(request.ignore_eos, defaults.ignore_eos),
    )


def _given(value: Value | None, default: Value) -> Value:
    return default if value is None else value


def _wrapped(seed: int) -> int:
    """Seeds are 64-bit numbers: the one after the last is the first."""
    return (seed + 2**63) % 2**64 - 2**63
