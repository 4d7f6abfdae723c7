"""Tiny GGUF files of the families that llama.cpp knows, in both: what they predict, in prefill and decode.

`tests/goldens/llama_cpp` has what llama.cpp gave. It computes GELU by a table of float16, and its rotary factors in
another order, so that the bound is on log-probabilities, a little above float32's own.

pytest -m families tests/numerics/test_llama_cpp.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from family_gguf import COMPARED, write_family_gguf

from compiled import compiled_folder
from family_models import GOLDENS, VOCABULARY, llama_cpp_prompt
from numerics.sequence import Sequences
from selected_tests import made_ahead, selected

TOLERANCE = 3e-3

pytestmark = [pytest.mark.families, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def folders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Path]]]:
    """The files that are tested, compiled."""
    files = tmp_path_factory.mktemp("files")
    config = files / "plain.toml"
    # Kernels in portable code compile several times as fast; those for this machine are compared with transformers.
    config.write_text('[target]\nisa = "plain"\n')

    def compiled(name: str) -> Path:
        write_family_gguf(files / f"{name}.gguf", name)
        return compiled_folder(str(files / f"{name}.gguf"), "f32", config)

    with made_ahead(selected(request, "name"), compiled) as made:
        yield made


@pytest.mark.parametrize("name", COMPARED)
def test_both_predict_the_same(folders: Mapping[str, Future[Path]], name: str) -> None:
    golden = np.load(GOLDENS.parent / "llama_cpp" / f"{name}.npz")
    tokens, expected = golden["tokens"], golden["logprobs"]
    sequences, prompt = Sequences(folders[name].result()), llama_cpp_prompt(name)
    last = sequences.run(prompt, len(prompt))[-1:]
    logits = np.concatenate([last, sequences.run(tokens[:-1], 1)])[:, :VOCABULARY].astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    found = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    assert np.abs(found - expected).max() < TOLERANCE
    np.testing.assert_array_equal(found.argmax(axis=1), tokens)
