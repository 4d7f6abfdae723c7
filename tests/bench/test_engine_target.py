"""An engine in this process as a target."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupola.bench.engine_target import EngineTarget, cost_of
from cupola.bench.open_targets import cost_of_path
from cupola.engine.async_engine import AsyncEngine
from cupola.engine.backends.scripted import scripted_manifest
from cupola.errors import ContextLengthError, UsageError
from cupola.manifest import Weight


def weight(name: str, *shape: int, dtype: str = "uint8", kind: str = "q4") -> Weight:
    return Weight(name=name, file="weights-00001.safetensors", format=kind, dtype=dtype, shape=shape)


async def test_a_sample_of_the_engine() -> None:
    async with AsyncEngine("scripted:eos_every=3") as engine:
        target = EngineTarget("engine", engine)
        sample = await target.generate("hello", 50)
        assert (sample.prompt_tokens, sample.completion_tokens) == (5, 50)
        assert sample.start < sample.arrivals[0] <= sample.arrivals[-1] <= sample.end
        with pytest.raises(ContextLengthError):
            await target.generate("x" * 5000, 1)
        with pytest.raises(UsageError, match="it is in this process"):
            await target.measure_start("hello")


def test_the_cost_of_a_token() -> None:
    manifest = scripted_manifest()
    norm = weight("norm", 5, dtype="float32", kind="vector")
    tied = manifest.model_copy(update={"weights": (weight("embedding.weight", 10, 3), norm)})
    assert cost_of(tied).weights == 30 + 20
    assert cost_of(tied).kv_per_token == 1
    untied = manifest.model_copy(update={"weights": (*tied.weights, weight("head.weight", 7))})
    assert cost_of(untied).weights == 20 + 7
    assert cost_of(untied).operations == 0
    layers = weight("qkv", 6, 2, 320), weight("gate", 6, 2, 544, kind="q8"), weight("down", 6, 8, 16, kind="f32")
    deep = manifest.model_copy(update={"weights": (*untied.weights, *layers)})
    assert cost_of(deep).operations == 2 * (2 * 96 * 64 + 6 * 8 * 16)


def test_layers_with_a_window_read_no_more_than_it() -> None:
    plain = scripted_manifest()
    layers, whole = plain.shape.num_layers, cost_of(plain)
    kv_cache = plain.kv_cache.model_copy(update={"window": 100, "window_layers": tuple(range(layers))})
    cost = cost_of(plain.model_copy(update={"kv_cache": kv_cache}))
    assert cost.bytes_behind(60) == whole.bytes_behind(60) > whole.weights
    assert cost.bytes_behind(500) == cost.bytes_behind(100) == whole.bytes_behind(100)


def test_the_cost_of_files(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"x" * 77)
    assert cost_of_path(file).weights == 77
    (tmp_path / "model.json").write_text(scripted_manifest().model_dump_json())
    assert cost_of_path(tmp_path).weights == 0
    with pytest.raises(UsageError, match="neither a compiled folder nor a file"):
        cost_of_path(tmp_path / "nothing")
