"""Tiny encoders of every kind, compiled for WebGPU, against transformers (`tests/goldens/tiny_encoders.npz`), as the
processor's libraries are: vectors, and the numbers of classifiers.

All tests run what differs most; `make families-gpu` (CUPOLA_GPU_FAMILIES=all) runs every one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cupola.compiler.compile import compile_model
from cupola.compiler.config import load
from cupola.compiler.target import resolve_all
from cupola.engine.backends.select import open_model
from cupola.engine.options import EngineOptions
from cupola.weights.source import open_checkpoint
from native.test_embedder import wait
from tiny_encoders import TINY_CLASSIFIERS, TINY_ENCODERS, TinyEncoder

GOLDENS = Path(__file__).resolve().parents[1] / "goldens" / "tiny_encoders.npz"
CONFIG = Path(__file__).resolve().parents[2] / "compile_configs" / "webgpu.toml"
TINY = {tiny.name: tiny for tiny in (*TINY_ENCODERS, *TINY_CLASSIFIERS)}
# Positions in two ways and distances; windows and rotation; gates; heads. Then every one.
SOME = ("mean", "xlm-roberta", "mpnet", "modernbert", "nomic_bert", "gte", "bert-labels")
CHOSEN = tuple(TINY) if os.environ.get("CUPOLA_GPU_FAMILIES") == "all" else SOME
TOLERANCE = {"f32": 1e-3, "q16": 5e-3}  # as of the processor's libraries: `tests/numerics/test_encoders.py`


@pytest.mark.parametrize("name", CHOSEN)
def test_vectors_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    tiny = TINY[name]
    tiny.write(tmp_path / name)
    expected = np.load(GOLDENS)[name]
    for quant in ("f32", "q16") if name in ("mean", "modernbert") else ("f32",):
        compile_for_webgpu(tmp_path / name, quant, tmp_path / quant)
        for found in vectors(tmp_path / quant, tiny):
            assert np.abs(found - expected).max() < TOLERANCE[quant]


def compile_for_webgpu(model: Path, quant: str, folder: Path) -> None:
    config = load(CONFIG).with_quant(quant)
    compile_model(open_checkpoint(str(model)), config, resolve_all(config.target, quant), folder, lambda _: None)


def vectors(folder: Path, tiny: TinyEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Of all texts, in one job and in a job each."""
    embedder = open_model(str(folder), "auto", EngineOptions()).embedder
    assert embedder is not None
    texts = tiny.texts()
    types = [tiny.types_of(text) for text in texts] if tiny.labels else None
    embedder.add(1, texts, types)
    for i, text in enumerate(texts):
        embedder.add(2 + i, [text], None if types is None else [types[i]])
    results = {result.job_id: result for result in wait(embedder, 1 + len(texts))}
    embedder.close()
    assert {result.error for result in results.values()} == {None}
    together = np.frombuffer(results[1].vectors, np.float32).reshape(len(texts), -1)
    alone = np.concatenate([np.frombuffer(results[2 + i].vectors, np.float32) for i in range(len(texts))])
    return together, alone.reshape(together.shape)
