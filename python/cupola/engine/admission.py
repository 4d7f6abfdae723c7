"""What a request must fulfil before the backend sees it, and its native form.

Everything here is decided from the request, the manifest and the engine's sizes alone. Every refusal names the
field, what was given and what is allowed.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from cupola.engine.grammar import CompiledGrammar, check_grammar
from cupola.engine.request import (
    MAX_LOGPROBS,
    EngineConfig,
    GenerateRequest,
    RequestOptions,
    SamplingParams,
    ThinkingLimit,
)
from cupola.errors import ContextLengthError, RequestError
from cupola.manifest import Manifest

_MAX_STOP_STRINGS = 64
_MAX_STOP_CHARACTERS = 1024
_MAX_STOP_TOKEN_IDS = 256
_MAX_SEED = 2**63 - 1
_MAX_PRIORITY = 2**31 - 1
_MAX_BIASED = 1024
_MAX_BAD_WORDS = 1024
_MAX_BAD_WORD_LENGTH = 1024
_MAX_TIMEOUT = 7 * 24 * 3600
_MAX_SALT_CHARACTERS = 1024


def native_request(
    request_id: int,
    token_ids: Sequence[int],
    params: SamplingParams,
    options: RequestOptions,
    config: EngineConfig,
    manifest: Manifest,
    *,
    bad_words: Sequence[Sequence[int]] = (),
    grammar: CompiledGrammar | None = None,
) -> GenerateRequest:
    """Check a request and resolve what it leaves open: the seed, and `max_tokens` up to the end of the context.

    `bad_words` are those of `params` as token ids, `grammar` is that of `params` compiled.

    Raises:
        RequestError: a parameter or a token id is out of range, or the prompt is empty.
        ContextLengthError: the prompt, or the prompt and `max_tokens`, do not fit `config.max_context`.
    """
    check_params(params, manifest)
    _check_options(options)
    prompt = _checked_prompt(token_ids, manifest.shape.vocab_size)
    max_tokens = _resolved_max_tokens(len(prompt), params.max_tokens, config.max_context)
    seed = secrets.randbits(63) if params.seed is None else params.seed
    stop_ids = params.stop_token_ids if params.ignore_eos else (*manifest.special_ids.eos, *params.stop_token_ids)
    return GenerateRequest(
        id=request_id,
        token_ids=prompt,
        sampling=replace(params, seed=seed, max_tokens=max_tokens),
        stop_token_ids=tuple(dict.fromkeys(stop_ids)),
        bad_words=tuple(tuple(word) for word in bad_words),
        priority=options.priority,
        logprobs_from=None if params.prompt_logprobs is None else params.prompt_logprobs_from,
        cache_seed=cache_seed(manifest.name, options.cache_salt),
        pin_prefix=bool(options.pin_prefix),
        deadline=None if options.timeout is None else time.monotonic() + options.timeout,
        grammar=grammar,
    )


def check_params(params: SamplingParams, manifest: Manifest) -> None:
    """RequestError if a sampling parameter is out of range."""
    _check_number("temperature", params.temperature, "a number from 0 to 2", lambda x: 0 <= x <= 2)
    _check_number("top_p", params.top_p, "a number above 0, up to 1", lambda x: 0 < x <= 1)
    _check_number("min_p", params.min_p, "a number from 0 to 1", lambda x: 0 <= x <= 1)
    _check_integer("top_k", params.top_k, 0, 2**31 - 1)
    if params.seed is not None:
        _check_integer("seed", params.seed, -_MAX_SEED - 1, _MAX_SEED)
    if params.max_tokens is not None:
        _check_integer("max_tokens", params.max_tokens, 0, 2**31 - 1)
    _check_integer("min_tokens", params.min_tokens, 0, 2**31 - 1)
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        raise _refusal("min_tokens", params.min_tokens, f"at most max_tokens ({params.max_tokens})")
    _check_penalties(params)
    _check_stop(params)
    _check_logprobs(params)
    vocab_size = manifest.shape.vocab_size
    _check_ids("stop_token_ids", params.stop_token_ids, vocab_size)
    _check_ids("allowed_token_ids", params.allowed_token_ids, vocab_size)
    _check_bias(params.logit_bias, vocab_size)
    _check_bad_words(params.bad_words, vocab_size)
    if params.grammar is not None:
        check_grammar(params.grammar)
    if params.thinking_limit is not None:
        _check_thinking(params.thinking_limit, vocab_size)


def _check_penalties(params: SamplingParams) -> None:
    _check_number("presence_penalty", params.presence_penalty, "a number from -2 to 2", lambda x: -2 <= x <= 2)
    _check_number("frequency_penalty", params.frequency_penalty, "a number from -2 to 2", lambda x: -2 <= x <= 2)
    _check_number("repetition_penalty", params.repetition_penalty, "a number above 0, up to 10", lambda x: 0 < x <= 10)


def _check_logprobs(params: SamplingParams) -> None:
    for field, value in (("logprobs", params.logprobs), ("prompt_logprobs", params.prompt_logprobs)):
        if value is not None:
            _check_integer(field, value, 0, MAX_LOGPROBS)
    _check_integer("prompt_logprobs_from", params.prompt_logprobs_from, 1, 2**31 - 1)


def _check_thinking(limit: ThinkingLimit, vocab_size: int) -> None:
    _check_integer("thinking_limit", limit.budget, 0, 2**31 - 1)
    _check_ids("thinking_limit", (*limit.open, limit.close), vocab_size)


def _check_bias(logit_bias: Mapping[int, float], vocab_size: int) -> None:
    if len(logit_bias) > _MAX_BIASED:
        raise _refusal("logit_bias", f"{len(logit_bias)} ids", f"at most {_MAX_BIASED}")
    _check_ids("logit_bias", logit_bias, vocab_size)
    for bias in logit_bias.values():
        _check_number("logit_bias", bias, "numbers from -100 to 100", lambda x: -100 <= x <= 100)


def _check_bad_words(bad_words: Sequence[str | Sequence[int]], vocab_size: int) -> None:
    if isinstance(cast(object, bad_words), str) or len(bad_words) > _MAX_BAD_WORDS:
        raise _refusal("bad_words", bad_words, f"at most {_MAX_BAD_WORDS} strings or lists of token ids")
    for word in bad_words:
        if not 0 < len(word) <= _MAX_BAD_WORD_LENGTH:
            raise _refusal("bad_words", word, f"1 to {_MAX_BAD_WORD_LENGTH} characters or token ids each")
        if not isinstance(word, str):
            _check_ids("bad_words", word, vocab_size)


def _check_ids(field: str, token_ids: Iterable[int], vocab_size: int) -> None:
    for token_id in token_ids:
        if type(token_id) is not int or not 0 <= token_id < vocab_size:
            raise _refusal(field, token_id, f"token ids from 0 to {vocab_size - 1}")


def _check_options(options: RequestOptions) -> None:
    _check_integer("priority", options.priority, -_MAX_PRIORITY, _MAX_PRIORITY)
    if options.timeout is not None:
        allowed = f"a number of seconds above 0, up to {_MAX_TIMEOUT}"
        _check_number("timeout", options.timeout, allowed, lambda x: 0 < x <= _MAX_TIMEOUT)
    salt = options.cache_salt
    if salt is not None and not (isinstance(salt, str) and 0 < len(salt) <= _MAX_SALT_CHARACTERS):
        raise _refusal("cache_salt", salt, f"a string of 1 to {_MAX_SALT_CHARACTERS} characters")


def cache_seed(model: str, salt: str | None) -> int:
    """64 bits that two requests share only if they may share computed pages."""
    owner = repr((model, salt)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(owner, digest_size=8).digest(), "little")


def _check_stop(params: SamplingParams) -> None:
    if isinstance(cast(object, params.stop), str):  # a string is a sequence of strings, which nobody means
        raise _refusal("stop", params.stop, "a tuple of strings")
    if len(params.stop) > _MAX_STOP_STRINGS:
        raise _refusal("stop", f"{len(params.stop)} strings", f"at most {_MAX_STOP_STRINGS}")
    for stop in params.stop:
        if not isinstance(stop, str) or not 0 < len(stop) <= _MAX_STOP_CHARACTERS:
            raise _refusal("stop", stop, f"strings of 1 to {_MAX_STOP_CHARACTERS} characters")
    if len(params.stop_token_ids) > _MAX_STOP_TOKEN_IDS:
        raise _refusal("stop_token_ids", f"{len(params.stop_token_ids)} ids", f"at most {_MAX_STOP_TOKEN_IDS}")


def _checked_prompt(token_ids: Sequence[int], vocab_size: int) -> tuple[int, ...]:
    prompt = tuple(token_ids)
    if not prompt:
        raise RequestError("The prompt is empty; at least one token is needed", param="prompt")
    for position, token_id in enumerate(prompt):
        if type(token_id) is not int or not 0 <= token_id < vocab_size:
            raise RequestError(
                f"Token id {token_id!r} at position {position} of the prompt is not an integer "
                f"from 0 to {vocab_size - 1}, the model's vocabulary",
                param="prompt",
            )
    return prompt


def _resolved_max_tokens(prompt_tokens: int, max_tokens: int | None, max_context: int) -> int:
    room = max_context - prompt_tokens
    if room < (max_tokens != 0):
        left = "" if max_tokens == 0 else ", of which at least one must be left for the answer"
        raise ContextLengthError(
            f"The prompt has {prompt_tokens} tokens, but the context holds {max_context}{left}",
            param="prompt",
            code="context_length_exceeded",
            hint="Shorten the prompt.",
        )
    if max_tokens is not None and max_tokens > room:
        raise ContextLengthError(
            f"The prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, together "
            f"{prompt_tokens + max_tokens}, but the context holds {max_context}",
            param="max_tokens",
            code="context_length_exceeded",
            hint=f"Shorten the prompt, or set max_tokens to at most {room}.",
        )
    return room if max_tokens is None else max_tokens


def _check_number(field: str, value: float, allowed: str, holds: Callable[[float], bool]) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not holds(value):
        raise _refusal(field, value, allowed)


def _check_integer(field: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise _refusal(field, value, f"an integer from {low} to {high}")


def _refusal(field: str, value: object, allowed: str) -> RequestError:
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return RequestError(f"`{field}` is {shown}; allowed: {allowed}", param=field)
