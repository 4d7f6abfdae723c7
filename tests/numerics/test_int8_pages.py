"""KV pages of int8 in a whole model: what they lose, what they cost, and that they keep every promise of the others.

pytest tests/numerics/test_int8_pages.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from cupola.engine.native import NativeEngine, load_compiled
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from native.native_driver import run
from numerics.sequence import Sequences, read_manifest
from tiny_models import TINY_MODELS, TinyModel

TINY = next(tiny for tiny in TINY_MODELS if tiny.name == "three-heads")
BOUND = 2e-3  # mean KL divergence; 9e-4 measured. Random weights attend to everything alike, which is the worst case


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """dtype of the pages -> compiled folder of the same float32 weights."""
    root = tmp_path_factory.mktemp("int8")
    TINY.write(root / "model")
    result = {}
    for dtype in ("float32", "float16", "int8"):
        config = root / f"{dtype}.toml"
        config.write_text(f'[kv_cache]\ndtype = "{dtype}"\n')
        result[dtype] = compiled_folder(str(root / "model"), "f32", config)
    return result


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def divergence(folder: Path, reference: Path, tiny: TinyModel) -> float:
    """Mean KL divergence over all rows of a teacher-forced text."""
    p, q = (log_probabilities(Sequences(path).run(tiny.token_ids(), 7)) for path in (reference, folder))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def test_pages_count_their_scales(folders: dict[str, Path]) -> None:
    caches = {dtype: read_manifest(folder).kv_cache for dtype, folder in folders.items()}
    components = 2 * 16 * TINY.kv_heads * TINY.head_dim
    assert caches["float16"].page_bytes == 2 * components
    assert caches["int8"].page_bytes == components + 2 * 16 * TINY.kv_heads * 4
    assert caches["int8"].dtype == "int8"


def test_int8_loses_little(folders: dict[str, Path]) -> None:
    lost = divergence(folders["int8"], folders["float32"], TINY)
    assert 0 < lost < BOUND
    assert divergence(folders["float16"], folders["float32"], TINY) < lost


def test_chunks_change_no_bit(folders: dict[str, Path]) -> None:
    sequences = Sequences(folders["int8"])
    expected = sequences.run(TINY.token_ids(), 80)
    for chunk in (1, 33):
        sequences.restart()
        np.testing.assert_array_equal(sequences.run(TINY.token_ids(), chunk), expected)


def tokens_of(folder: Path, max_batch: int) -> dict[int, list[int]]:
    """Greedy tokens of prompts of several lengths, out of the engine."""
    prompts = {i: tuple(TINY.token_ids()[i : i + length]) for i, length in enumerate((5, 16, 40, 1))}
    sampling = SamplingParams(temperature=0.0, seed=0, ignore_eos=True, max_tokens=24)
    engine = NativeEngine(
        load_compiled(folder, read_manifest(folder)),
        EngineConfig(num_pages=16, max_batch=max_batch, max_step_tokens=19),
        check_every_step=True,
    )
    results = run(engine, [GenerateRequest(id=i, token_ids=ids, sampling=sampling) for i, ids in prompts.items()])
    engine.close()
    return {i: result.tokens for i, result in results.items()}


def test_the_engine_serves_them(folders: dict[str, Path]) -> None:
    alone = tokens_of(folders["int8"], max_batch=1)
    assert all(len(tokens) == 24 for tokens in alone.values())
    assert tokens_of(folders["int8"], max_batch=4) == alone
