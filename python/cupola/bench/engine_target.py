"""An engine in this process as a target: no HTTP between the workload and it."""

from __future__ import annotations

import math
import os
import time

from cupola.bench.sample import Sample
from cupola.bench.target import Start, TokenCost
from cupola.engine.async_engine import AsyncEngine
from cupola.engine.request import SamplingParams
from cupola.errors import EngineError, UsageError
from cupola.manifest import Manifest, Weight
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import OUT_BLOCK

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}


class EngineTarget:
    """Requests go to an `AsyncEngine`, which is the caller's to open and to close."""

    def __init__(self, name: str, engine: AsyncEngine) -> None:
        self.name = name
        self.pid: int | None = os.getpid()
        self.cost: TokenCost | None = cost_of(engine.manifest)
        self.can_start = False
        self._engine = engine

    async def generate(self, prompt: str, max_tokens: int, *, reuse_prefix: bool = False) -> Sample:  # noqa: ARG002
        """See `Target.generate`; the engine itself decides what it remembers."""
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        start = time.perf_counter()
        arrivals: list[float] = []
        async for delta in self._engine.generate(prompt, params):
            now = time.perf_counter()
            if delta.text or (delta.usage is not None and not arrivals):
                arrivals.append(now)
            if delta.usage is not None:
                return Sample(start, tuple(arrivals), now, delta.usage.prompt_tokens, delta.usage.completion_tokens)
        raise EngineError("The engine ended a stream without usage")

    async def measure_start(self, prompt: str) -> Start:
        """An engine in this process has no start of its own."""
        raise UsageError(f"{self.name} cannot be started again for `{prompt[:20]}`: it is in this process")

    def suspend(self) -> None:
        """Nothing to do: an idle engine waits."""

    def resume(self) -> None:
        """Nothing to do."""


_TABLES = ("embedding.weight", "head.weight")  # of which a prompt's token reads a row, or nothing


def cost_of(manifest: Manifest) -> TokenCost:
    """What a token costs by the manifest of a compiled model.

    Of a table of embeddings that is not also the output matrix, one row is read and not the whole.
    """
    sizes = {weight.name: math.prod(weight.shape) * _BYTES[weight.dtype] for weight in manifest.weights}
    if "head.weight" in sizes:
        del sizes["embedding.weight"]
    kv = manifest.kv_cache
    windows = len(kv.window_layers)
    return TokenCost(
        weights=sum(sizes.values()),
        kv_per_token=(manifest.shape.num_layers - windows) * kv.page_bytes // kv.page_size,
        window_kv_per_token=windows * kv.page_bytes // kv.page_size,
        window=kv.window,
        operations=2
        * sum(_values(weight) for weight in manifest.weights if weight.name not in ("embedding.weight", "head.weight")),
    )


def _values(weight: Weight) -> int:
    """How many numbers a matrix holds (what fills up its last block included); 0 of a vector."""
    if weight.format != "vector" and Format(weight.format).grouped:
        return math.prod(weight.shape[:2]) * OUT_BLOCK * GROUP
    return math.prod(weight.shape) if len(weight.shape) > 1 else 0
