"""Log-probabilities of the real model: those of its own logits, and the same for what it reads and what it writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cupola.engine.engine import Engine
from cupola.engine.options import EngineOptions
from cupola.engine.output import Completion
from cupola.engine.request import SamplingParams
from numerics.sequence import Sequences

pytestmark = pytest.mark.model

PROMPT = "The capital of France is Paris, and the capital of Ungheria è 布达佩斯. " * 6
HOT = SamplingParams(temperature=1.5, top_p=0.9, seed=4, max_tokens=60, ignore_eos=True, logprobs=5, prompt_logprobs=3)


@pytest.fixture(scope="module")
def engine(compiled_smollm2: Path) -> Iterator[Engine]:
    with Engine(str(compiled_smollm2), config=EngineOptions(max_step_tokens=100)) as opened:
        yield opened


@pytest.fixture(scope="module")
def completion(engine: Engine) -> Completion:
    return engine.generate(PROMPT, HOT)[0]


def test_they_are_the_log_softmax_of_the_logits(engine: Engine, completion: Completion, compiled_smollm2: Path) -> None:
    prompt = engine.tokenizer.encode(PROMPT)
    ids = [*prompt, *completion.token_ids]
    rows = Sequences(compiled_smollm2, max_tokens=len(ids)).run(ids, 64).astype(np.float64)
    expected = rows - rows.max(axis=1, keepdims=True)
    expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
    positions = (*completion.prompt_logprobs, *completion.logprobs)
    assert len(positions) == len(ids) - 1
    for token_id, row, position in zip(ids[1:], expected, positions, strict=False):
        assert position.token.token_id == token_id
        assert position.token.logprob == pytest.approx(row[token_id], abs=1e-3)
        assert position.token.rank == 1 + np.count_nonzero(row > row[token_id])
        best = np.sort(row)[::-1][: len(position.top)]
        assert [token.logprob for token in position.top] == pytest.approx(best, abs=1e-3)
    assert {len(position.top) for position in completion.prompt_logprobs} == {3}
    assert {len(position.top) for position in completion.logprobs} == {5}


def test_scoring_equals_generating(engine: Engine, completion: Completion) -> None:
    halves = [completion.token_ids, completion.token_ids[:30], engine.tokenizer.encode(" and Rome")]
    whole, half, other = engine.score(PROMPT, halves, top=5)
    generated = [position.token.logprob for position in completion.logprobs]
    assert list(whole.logprobs) == pytest.approx(generated, abs=1e-3)
    assert list(half.logprobs) == pytest.approx(generated[:30], abs=1e-3)
    assert whole.total == pytest.approx(sum(generated), abs=1e-2)
    assert len(other.logprobs) == 2
    greedy = engine.generate(PROMPT, SamplingParams(temperature=0.0, max_tokens=8))[0]
    assert engine.score(PROMPT, [greedy.token_ids])[0].is_greedy


def test_bytes_of_tokens_make_the_text(engine: Engine, completion: Completion) -> None:
    assert b"".join(position.token.data for position in completion.prompt_logprobs) == PROMPT.encode()[len("The") :]
    params = SamplingParams(temperature=0.0, max_tokens=40, logprobs=0, ignore_eos=True)
    written = engine.generate("Here are ten emoji: 😀 😃 😄", params)[0]
    shown = [position.token for position in written.logprobs]
    special = engine.tokenizer.special_ids
    joined = b"".join(token.data for token in shown if token.token_id not in special)
    assert joined.decode("utf-8", "replace") == written.text
