"""What a user may choose about an engine. `None` means: the engine chooses (see `sizing`)."""

from __future__ import annotations

from dataclasses import dataclass

from cupola.engine.request import AdmissionPolicy


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of `Engine` and `AsyncEngine`.

    Args:
        max_context: most tokens (prompt and output) of one request; at most, and by default, the model's.
        max_batch: most requests that run at once; at most, and by default, what the model was compiled for.
        max_step_tokens: token budget of one step; at most, and by default, what the model was compiled for.
        kv_cache_memory: bytes for the KV pages; by default a quarter of the available memory, but not more
            than `max_batch` requests of `max_context` tokens need.
        num_pages: exact number of KV pages; overrides `kv_cache_memory`.
        max_queue: most requests that wait; beyond it a request is refused with OverloadedError.
        num_threads: most threads of the compiled library; 0 means one a core. While other processes keep a core
            busy, the engine uses fewer.
        bind_threads: keep each of them on a core of its own; for a machine that serves and does nothing else.
        spin_us: microseconds for which they spin for the next step before they sleep.
        prefix_cache: find computed pages again by their tokens, and share them.
        admission: "predicted" lets a request run when those that run are expected to leave it room, and preempts when
            that was wrong; "conservative" only when nobody can ever be preempted; "optimistic" as soon as there is
            room now.
        prefill_rows: most tokens of prompts that a step reads while others generate; 0 takes as many as the time
            between two tokens of a stream allows, learnt from how long steps take.
        record_steps: on a device that can, decodes are recorded once and replayed; turn it off to see whether an error
            comes from there.
        quant: scheme for compile-on-first-use (f32, f16, bf16, q16, q8, q4); no effect on a compiled folder.
        compile_config: TOML file for compile-on-first-use; no effect on a compiled folder.
        verify_files: compare the files of the compiled folder with their hashes at load.
    """

    max_context: int | None = None
    max_batch: int | None = None
    max_step_tokens: int | None = None
    kv_cache_memory: int | None = None
    num_pages: int | None = None
    max_queue: int = 1024
    num_threads: int = 0
    bind_threads: bool = False
    spin_us: int = 1000
    prefix_cache: bool = True
    admission: AdmissionPolicy = "predicted"
    prefill_rows: int = 0
    record_steps: bool = True
    quant: str | None = None
    compile_config: str | None = None
    verify_files: bool = True
