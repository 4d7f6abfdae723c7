"""What a request may ask of its logits, against NumPy: each by itself, all together, in their order, step by step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_sampler import BANNED, processed, request_of, sample_rows

from cupola.engine.request import GenerateRequest, SamplingParams

VOCAB = 100
GREEDY = SamplingParams(temperature=0.0, seed=0, max_tokens=1000)


def rows_of(count: int, seed: int = 0, vocab: int = VOCAB) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=3.0, size=(count, vocab)).astype(np.float32)


def assert_greedy_as_computed(request: GenerateRequest, rows: np.ndarray) -> None:
    """Every token has the largest logit of what NumPy makes of its row, within rounding."""
    sampled = sample_rows(request, rows)
    assert sampled.error == ""
    assert len(sampled.tokens) == len(rows)
    for step, token in enumerate(sampled.tokens):
        logits = processed(request, rows[step], sampled.tokens[:step])
        assert logits[token] != BANNED
        assert logits[token] >= logits.max() - 1e-4


ASKED: dict[str, SamplingParams] = {
    "bias": replace(GREEDY, logit_bias={3: 7.5, 5: -100.0, 99: 100.0}),
    "presence": replace(GREEDY, presence_penalty=2.0),
    "frequency": replace(GREEDY, frequency_penalty=1.5),
    "reward": replace(GREEDY, presence_penalty=-1.0, frequency_penalty=-2.0),
    "repetition": replace(GREEDY, repetition_penalty=1.8),
    "repetition reward": replace(GREEDY, repetition_penalty=0.5),
    "allowed": replace(GREEDY, allowed_token_ids=(9, 4, 64)),
    "min tokens": replace(GREEDY, min_tokens=8),
    "all": replace(
        GREEDY,
        logit_bias={7: 3.0, 8: -3.0},
        presence_penalty=0.5,
        frequency_penalty=0.7,
        repetition_penalty=1.3,
        allowed_token_ids=tuple(range(0, VOCAB, 2)),
        min_tokens=5,
    ),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("peaked", [False, True])  # the same row again and again: penalties must change the answer
def test_greedy_follows_what_was_asked(asked: str, peaked: bool) -> None:
    rows = np.repeat(rows_of(1), 40, axis=0) if peaked else rows_of(40)
    request = request_of(ASKED[asked], prompt=(1, 2, 2, 50), stop=(6, 7, 8), bad_words=((11,), (2, 50, 12)))
    assert_greedy_as_computed(request, rows)


def test_presence_counts_the_output_once_and_repetition_the_prompt_too() -> None:
    row = np.array([[5.0, 4.0, 3.0]] * 3, np.float32)
    assert sample_rows(request_of(replace(GREEDY, presence_penalty=1.5), prompt=(0,)), row).tokens == [0, 1, 0]
    assert sample_rows(request_of(replace(GREEDY, repetition_penalty=2.0), prompt=(0,)), row).tokens == [1, 2, 0]


def test_frequency_counts_every_time() -> None:
    row = np.array([[5.0, 3.6, 0.0]] * 4, np.float32)
    assert sample_rows(request_of(replace(GREEDY, frequency_penalty=1.0)), row).tokens == [0, 0, 1, 0]


def test_repetition_pushes_negative_logits_down() -> None:
    row = np.array([[-1.0, -1.5]] * 2, np.float32)
    assert sample_rows(request_of(replace(GREEDY, repetition_penalty=2.0), prompt=(0,)), row).tokens == [1, 0]


def test_bias_comes_before_penalties() -> None:
    # (1 + 8) / 2 = 4.5 wins against 4.2; 1 / 2 + 8 would lose against 4.8.
    request = request_of(replace(GREEDY, repetition_penalty=2.0, logit_bias={0: 8.0}), prompt=(0,))
    assert sample_rows(request, np.array([[1.0, 4.2]], np.float32)).tokens == [0]
    assert sample_rows(request, np.array([[1.0, 4.8]], np.float32)).tokens == [1]


def test_a_bias_cannot_bring_back_what_is_not_allowed() -> None:
    request = request_of(replace(GREEDY, allowed_token_ids=(1, 2), logit_bias={0: 100.0}))
    assert sample_rows(request, np.zeros((1, 3), np.float32)).tokens == [1]


def test_a_bad_word_is_banned_where_it_would_be_completed_and_only_there() -> None:
    rows = np.zeros((6, 5), np.float32)
    rows[:, 3], rows[:, 4] = 2.0, 1.0
    assert sample_rows(request_of(GREEDY, bad_words=((3, 3, 3),)), rows).tokens == [3, 3, 4, 3, 3, 4]
    assert sample_rows(request_of(GREEDY, bad_words=((3,), (4,))), rows).tokens == [0] * 6
    # It may have begun in the prompt; one that is longer than all there is begins nowhere.
    assert sample_rows(request_of(GREEDY, prompt=(1, 3), bad_words=((1, 3, 3),)), rows[:2]).tokens == [4, 3]
    assert sample_rows(request_of(GREEDY, prompt=(1,), bad_words=((0,) * 9,)), rows[:1]).tokens == [3]


def test_stop_ids_come_only_after_min_tokens() -> None:
    rows = np.zeros((5, 4), np.float32)
    rows[:, 2] = 1.0
    assert sample_rows(request_of(replace(GREEDY, min_tokens=3), stop=(2,)), rows).tokens == [0, 0, 0, 2, 2]


@pytest.mark.parametrize(
    "request_",
    [
        request_of(replace(GREEDY, allowed_token_ids=(1, 2), min_tokens=1), stop=(1, 2)),
        request_of(replace(GREEDY, allowed_token_ids=(1,)), bad_words=((1,),)),
        request_of(GREEDY, bad_words=tuple((token,) for token in range(3))),
        request_of(replace(GREEDY, min_tokens=1, temperature=1.0), stop=(0, 1, 2)),
    ],
)
def test_where_nothing_is_allowed_there_is_an_error(request_: GenerateRequest) -> None:
    sampled = sample_rows(request_, np.zeros((2, 3), np.float32))
    assert sampled.tokens == []
    assert "no token is allowed" in sampled.error


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("asked", [GREEDY, replace(GREEDY, allowed_token_ids=(0,))])
def test_a_row_that_is_not_finite_is_an_error_whatever_is_asked(asked: SamplingParams, bad: float) -> None:
    rows = np.zeros((1, 70), np.float32)
    rows[0, 69] = bad
    assert "not finite" in sample_rows(request_of(asked), rows).error


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(0, 1.0, 0.0), (90, 1.0, 0.0), (0, 0.999, 0.0), (0, 1.0, 1e-6)])
def test_banned_tokens_are_never_drawn(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    sampling = SamplingParams(
        temperature, top_k, top_p, min_p, seed=5, max_tokens=1, allowed_token_ids=(1, 70, 5), logit_bias={70: -2.0}
    )
    rows = np.repeat(rows_of(1), 400, axis=0)
    assert set(sample_rows(request_of(sampling, bad_words=((5,),)), rows).tokens) == {1, 70}


def test_draws_follow_the_processed_distribution() -> None:
    sampling = SamplingParams(
        temperature=0.8, seed=3, max_tokens=1, logit_bias={0: 2.0, 4: -1.0}, repetition_penalty=1.4
    )
    request = request_of(sampling, prompt=(1, 2))
    row = rows_of(1, vocab=8)
    drawn: Counter[int] = Counter()
    count = 4000
    for seed in range(count):
        one = replace(request, sampling=replace(sampling, seed=seed))
        drawn.update(sample_rows(one, row).tokens)
    weights = np.exp(processed(request, row[0], ()) / 0.8)
    expected = weights / weights.sum() * count
    observed = np.array([drawn[token] for token in range(8)])
    common = expected >= 5
    statistic = ((observed - expected)[common] ** 2 / expected[common]).sum()
    assert statistic < common.sum() + 6 * np.sqrt(2 * common.sum())


ids = st.integers(0, 15)


@settings(max_examples=150, deadline=None)
@given(
    sampling=st.builds(
        SamplingParams,
        temperature=st.just(0.0),
        seed=st.just(0),
        max_tokens=st.just(100),
        min_tokens=st.integers(0, 6),
        presence_penalty=st.floats(-2, 2, width=32),
        frequency_penalty=st.floats(-2, 2, width=32),
        repetition_penalty=st.sampled_from([1.0, 0.25, 1.5, 4.0]),
        logit_bias=st.dictionaries(ids, st.floats(-100, 100, width=32), max_size=4),
        allowed_token_ids=st.sets(ids, max_size=6).map(lambda found: tuple(sorted(found))),
    ),
    prompt=st.lists(ids, min_size=1, max_size=6),
    stop=st.sets(ids, max_size=2),
    bad_words=st.lists(st.lists(ids, min_size=1, max_size=3), max_size=4),
    seed=st.integers(0, 1000),
)
def test_anything_asked_together(
    sampling: SamplingParams, prompt: list[int], stop: set[int], bad_words: list[list[int]], seed: int
) -> None:
    request = request_of(sampling, prompt, sorted(stop), bad_words)
    rows = rows_of(10, seed, vocab=16)
    sampled = sample_rows(request, rows)
    for step in range(len(sampled.tokens) + bool(sampled.error)):
        logits = processed(request, rows[step], sampled.tokens[:step])
        if step == len(sampled.tokens):
            assert (logits == BANNED).all()
        else:
            assert logits[sampled.tokens[step]] >= logits.max() - 1e-3
