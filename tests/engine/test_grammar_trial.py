"""The process that large grammars must pass: it answers, it dies in place of the engine, and it comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cupola.engine import grammar_trial
from cupola.engine.backends.scripted import EOS_ID, VOCAB_SIZE, byte_tokenizer
from cupola.engine.grammar_trial import GrammarTrial
from cupola.text.vocabulary import read_vocabulary


@pytest.fixture(scope="module")
def trial() -> Iterator[GrammarTrial]:
    """One process for all that it survives."""
    trial = GrammarTrial(read_vocabulary(byte_tokenizer(), VOCAB_SIZE), [EOS_ID])
    yield trial
    trial.close()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow and busy machine a small grammar, too, may take its time."""
    monkeypatch.setattr(grammar_trial, "TRIAL_SECONDS", 100.0)


def test_it_says_what_the_engine_would_say(trial: GrammarTrial) -> None:
    trial.check("regex", "[a-z]+")
    with pytest.raises(ValueError, match="unclosed group"):
        trial.check("regex", "(")
    trial.check("json_schema", '{"type": "object"}')


def test_a_stack_that_overflows_there_is_a_refusal_here(trial: GrammarTrial) -> None:
    row = {f"d{i}": {"properties": {"x": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(5000)} | {"d5000": {}}
    with pytest.raises(ValueError, match="too deeply nested"):
        trial.check("json_schema", json.dumps({"$defs": row, "$ref": "#/$defs/d0"}))
    trial.check("regex", "a")


def test_what_takes_too_long_is_ended(trial: GrammarTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"patternProperties": {f"^a{i}x.*$": {} for i in range(900)}}
    with monkeypatch.context() as patch:
        patch.setattr(grammar_trial, "TRIAL_SECONDS", 0.5)
        with pytest.raises(ValueError, match="takes more than"):
            trial.check("json_schema", json.dumps(schema))
    trial.check("regex", "a")


def test_closing_ends_the_process_and_the_next_trial_starts_one(trial: GrammarTrial) -> None:
    trial.check("regex", "a")
    process = trial._process
    assert process is not None
    trial.close()
    assert process.poll() is not None
    trial.check("regex", "a")
