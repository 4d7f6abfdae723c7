"""Tiny encoders of every kind on any GPU, whose vectors and numbers of classifiers are those of transformers
(`tests/goldens/tiny_encoders.npz`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cupola.engine.backends.select import open_model
from cupola.engine.options import EngineOptions
from native.test_embedder import wait
from tiny_encoders import TINY_CLASSIFIERS, TINY_ENCODERS, TinyEncoder

GOLDENS = Path(__file__).resolve().parents[1] / "goldens" / "tiny_encoders.npz"
TINY = {tiny.name: tiny for tiny in (*TINY_ENCODERS, *TINY_CLASSIFIERS)}


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
