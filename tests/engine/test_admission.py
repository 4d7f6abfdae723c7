"""Every refusal names the field, the value and what is allowed; what is left open is resolved."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from cupola.engine.admission import native_request
from cupola.engine.backends.scripted import EOS_ID, VOCAB_SIZE, scripted_manifest
from cupola.engine.request import EngineConfig, GenerateRequest, RequestOptions, SamplingParams
from cupola.errors import ContextLengthError, RequestError

CONFIG = EngineConfig(num_pages=100, max_context=100)


def admit(params: SamplingParams, prompt: object = (1, 2, 3), priority: int = 0) -> GenerateRequest:
    return native_request(5, prompt, params, RequestOptions(priority), CONFIG, scripted_manifest())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", "warm"),
        ("temperature", True),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.inf),
        ("min_p", -0.5),
        ("min_p", 1.5),
        ("top_k", -1),
        ("top_k", 2.0),
        ("top_k", 2**31),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("seed", "7"),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("min_tokens", -1),
        ("stop", "a string"),
        ("stop", ("",)),
        ("stop", ("x" * 1025,)),
        ("stop", (7,)),
        ("stop", ("x",) * 65),
        ("stop_token_ids", (-1,)),
        ("stop_token_ids", (VOCAB_SIZE,)),
        ("stop_token_ids", (True,)),
        ("stop_token_ids", (1,) * 257),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"`{field}` is .*; allowed: ") as caught:
        admit(replace(SamplingParams(), **{field: value}))
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0),
        ("temperature", 2),
        ("top_p", 1e-9),
        ("min_p", 1),
        ("top_k", 2**31 - 1),
        ("seed", -(2**63)),
        ("seed", 2**63 - 1),
        ("max_tokens", 97),
        ("min_tokens", 97),
        ("stop", ("x" * 1024,) * 64),
        ("stop_token_ids", (0, VOCAB_SIZE - 1)),
    ],
)
def test_values_at_the_limits_are_taken(field: str, value: object) -> None:
    assert getattr(admit(replace(SamplingParams(), **{field: value})).sampling, field) == value


def test_min_tokens_beyond_max_tokens_is_refused() -> None:
    with pytest.raises(RequestError, match=r"`min_tokens` is 6; allowed: at most max_tokens \(5\)"):
        admit(SamplingParams(max_tokens=5, min_tokens=6))


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(RequestError) as caught:
        admit(SamplingParams(stop=("y" * 100_000,)))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("token_id", [-1, VOCAB_SIZE, 10**20, 1.0, "a", None, True])
def test_token_ids_outside_of_the_vocabulary_are_refused(token_id: object) -> None:
    with pytest.raises(RequestError, match=f"at position 1 .* 0 to {VOCAB_SIZE - 1}") as caught:
        admit(SamplingParams(), [0, token_id])
    assert caught.value.param == "prompt"


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(RequestError, match="empty") as caught:
        admit(SamplingParams(), [])
    assert caught.value.param == "prompt"


def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers() -> None:
    assert admit(SamplingParams(), [1] * 99).sampling.max_tokens == 1
    for length in (100, 250):
        with pytest.raises(ContextLengthError, match=f"{length} tokens, but the context holds 100") as caught:
            admit(SamplingParams(), [1] * length)
        assert caught.value.code == "context_length_exceeded"


def test_max_tokens_beyond_the_context_is_refused_with_the_numbers() -> None:
    assert admit(SamplingParams(max_tokens=40), [1] * 60).sampling.max_tokens == 40
    with pytest.raises(
        ContextLengthError, match=r"60 tokens and max_tokens is 41, together 101, .* holds 100"
    ) as caught:
        admit(SamplingParams(max_tokens=41), [1] * 60)
    assert caught.value.param == "max_tokens"


def test_priority_is_a_32_bit_integer() -> None:
    assert admit(SamplingParams(), priority=-3).priority == -3
    for priority in (2**31, 1.5):
        with pytest.raises(RequestError, match="priority"):
            admit(SamplingParams(), priority=priority)  # type: ignore[arg-type]


def test_what_is_left_open_is_resolved() -> None:
    seeds = {admit(SamplingParams()).sampling.seed for _ in range(20)}
    assert len(seeds) == 20
    assert admit(SamplingParams(seed=0)).sampling.seed == 0
    assert admit(SamplingParams()).sampling.max_tokens == 97
    assert admit(SamplingParams()).stop_token_ids == (EOS_ID,)
    assert admit(SamplingParams(stop_token_ids=(7, EOS_ID, 7))).stop_token_ids == (EOS_ID, 7)
    assert admit(SamplingParams(ignore_eos=True, stop_token_ids=(7,))).stop_token_ids == (7,)
