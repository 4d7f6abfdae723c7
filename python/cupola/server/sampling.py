"""From a request's fields to the engine's SamplingParams. Knows both vocabularies, and no endpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from cupola.engine.request import RequestOptions, SamplingParams
from cupola.protocol.generation import EngineFields, GenerationFields
from cupola.server.structured import grammar_of

Value = TypeVar("Value")

_LEAST_TOP_P = 1e-6  # OpenAI allows top_p = 0 (the likeliest token only); the engine wants a positive number


def choice_sampling(request: GenerationFields, defaults: SamplingParams) -> tuple[SamplingParams, ...]:
    """One for each of the `n` choices: they differ in their seeds, `seed + i`, and in nothing else.

    Args:
        request: what the client gave.
        defaults: for what it did not give; the model's own.
    """
    return _sampling(request, defaults).choices(request.n or 1)


def request_options(request: EngineFields) -> RequestOptions:
    """What a request asks of the engine, whatever it generates."""
    return RequestOptions(
        priority=request.priority or 0,
        timeout=request.timeout,
        cache_salt=request.cache_salt,
        pin_prefix=request.pin_prefix,
    )


def _sampling(request: GenerationFields, defaults: SamplingParams) -> SamplingParams:
    return replace(
        defaults,
        temperature=_given(request.temperature, defaults.temperature),
        top_k=max(0, _given(request.top_k, defaults.top_k)),
        top_p=max(_LEAST_TOP_P, _given(request.top_p, defaults.top_p)),
        min_p=_given(request.min_p, defaults.min_p),
        seed=_given(request.seed, defaults.seed),
        presence_penalty=_given(request.presence_penalty, defaults.presence_penalty),
        frequency_penalty=_given(request.frequency_penalty, defaults.frequency_penalty),
        repetition_penalty=_given(request.repetition_penalty, defaults.repetition_penalty),
        logit_bias=_given(request.logit_bias, defaults.logit_bias),
        allowed_token_ids=_given(request.allowed_token_ids, defaults.allowed_token_ids),
        bad_words=_given(request.bad_words, defaults.bad_words),
        logprobs=request.output_logprobs,
        prompt_logprobs=request.input_logprobs,
        max_tokens=_given(request.token_limit, defaults.max_tokens),
        min_tokens=_given(request.min_tokens, defaults.min_tokens),
        stop=_given(request.stop, defaults.stop),
        stop_token_ids=_given(request.stop_token_ids, defaults.stop_token_ids),
        ignore_eos=_given(request.ignore_eos, defaults.ignore_eos),
        grammar=grammar_of(request),
    )


def _given(value: Value | None, default: Value) -> Value:
    return default if value is None else value
