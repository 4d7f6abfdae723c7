"""Cupola's engine on a compiled folder, in this process: the seconds that its clients would see."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Sequence
from pathlib import Path

from cupola.engine.native import NativeEngine, load_compiled
from cupola.engine.native_model import device_room
from cupola.engine.options import EngineOptions
from cupola.engine.request import GenerateRequest, SamplingParams
from cupola.engine.sizing import engine_config
from cupola.errors import EngineError
from cupola.manifest import Manifest
from gpu_speed.cases import CONTEXT, Case


class Streams:
    """An engine that keeps no prefixes, so that every prompt is computed, and has the pages that the cases need."""

    def __init__(self, folder: Path, manifest: Manifest, cases: Sequence[Case]) -> None:
        """EngineError, ModelError, UsageError: the device cannot be used, or has no room."""
        pages = max(math.ceil(case.tokens / manifest.kv_cache.page_size) * case.streams for case in cases)
        options = EngineOptions(prefix_cache=False, num_pages=pages)
        config = engine_config(manifest, options, device=device_room(manifest))
        self._engine = NativeEngine(load_compiled(folder, manifest), config)
        self._vocabulary, self._next_id = manifest.shape.vocab_size, 0

    def seconds(self, case: Case) -> float:
        """Of one step while all streams generate; or of a prompt, up to its first token. EngineError: one failed."""
        if case.kind == "decode":
            return self._run(case.count, CONTEXT, case.steps + 1) / case.steps
        return self._run(1, case.count, 1)

    def close(self) -> None:
        self._engine.close()

    def _run(self, streams: int, prompt: int, tokens: int) -> float:
        """Seconds from the last stream's first token (from the beginning, if it is the only one) to the end."""
        begin = time.perf_counter()
        for stream in range(streams):
            ids = tuple((stream * 7919 + 31 * i) % self._vocabulary for i in range(prompt))
            sampling = SamplingParams(temperature=0.0, seed=0, max_tokens=tokens)
            self._engine.add(GenerateRequest(id=self._next_id, token_ids=ids, sampling=sampling))
            self._next_id += 1
        started, ended, first = set[int](), 0, begin
        while ended < streams:
            select.select([self._engine.event_fd], [], [])
            for delta in self._engine.take():
                if delta.error:
                    raise EngineError(f"a request failed: {delta.error}")
                if delta.token_ids and delta.request_id not in started:
                    started.add(delta.request_id)
                    first = time.perf_counter() if tokens > 1 else begin
                ended += delta.finish_reason is not None
        return time.perf_counter() - first
