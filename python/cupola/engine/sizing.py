"""How large an engine is: from the model's limits, the user's options and the machine's memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import psutil  # type: ignore[import-untyped]

from cupola.engine.options import EngineOptions
from cupola.engine.request import AdmissionPolicy, EngineConfig
from cupola.engine.room import DeviceRoom
from cupola.errors import UsageError
from cupola.manifest import Manifest

# Part of the available memory that the KV pages take when the user says nothing.
_DEFAULT_SHARE = 0.25
# The same of a device's memory beside the weights, which nothing else uses.
_DEVICE_SHARE = 0.9
# And where its driver does not say what is free (WebGPU).
_UNKNOWN_ROOM = 2**30
_MOST_PAGES = 2**31 - 1
_MOST_ELEMENTS = 2**31 - 1  # of a tensor on a GPU, whose kernels count in int32
_MOST_SPIN_US = 10**6


def engine_config(
    manifest: Manifest, options: EngineOptions, available: int | None = None, device: DeviceRoom | None = None
) -> EngineConfig:
    """Resolve every option.

    The pool holds at least one page and at most what `max_batch` requests of `max_context` tokens can fill; on a device
    whose tensors are bounded as many as fit into one, unless somebody asks for more. The context is cut to what the
    whole pool can hold, so that every request that is accepted can run alone.

    Args:
        available: bytes of memory that the machine has free; None asks the system.
        device: the memory of the device that the model runs on; None: it is the machine's.

    Raises:
        UsageError: an option is out of range, or asks for more pages than a tensor of the device holds.
    """
    max_context = _choose("max_context", options.max_context, manifest.shape.max_context)
    max_batch = _choose("max_batch", options.max_batch, manifest.limits.max_batch)
    max_step_tokens = _choose("max_step_tokens", options.max_step_tokens, manifest.limits.max_step_tokens)
    if max_step_tokens < max_batch:
        # A step takes one token of each running request at least.
        max_batch = max_step_tokens
    page_size = manifest.kv_cache.page_size
    wanted = max_batch * math.ceil(max_context / page_size)
    window_pages = _most_window_pages(manifest, max_batch, max_step_tokens)
    num_pages = options.num_pages
    most, why = _most_pages(manifest, device)
    pages_bound = ""
    if num_pages is None:
        free = _free(available) if device is None else _free_on(manifest, device)
        affordable = min(wanted, _affordable_pages(manifest, window_pages, options.kv_cache_memory, free))
        if affordable > most:
            _check_asked(manifest, options, most, why)
            pages_bound = why
        num_pages = min(affordable, most)
    elif not 1 <= num_pages <= most:
        limit = "at least 1" if num_pages < 1 else f"1 to {most}, since {why}"
        raise UsageError(f"`num_pages` is {num_pages}; allowed: {limit}")
    _check_threads_and_queue(options)
    if options.admission not in get_args(AdmissionPolicy):
        raise UsageError(f"`admission` is {options.admission!r}; allowed: {', '.join(get_args(AdmissionPolicy))}")
    if options.prefill_rows < 0:
        raise UsageError(f"`prefill_rows` is {options.prefill_rows}; allowed: 0 (as time allows) or more")
    return EngineConfig(
        num_pages=num_pages,
        num_window_pages=min(num_pages, window_pages),
        pages_bound=pages_bound,
        page_size=page_size,
        max_batch=max_batch,
        max_step_tokens=max_step_tokens,
        max_context=min(max_context, num_pages * page_size),
        max_queue=options.max_queue,
        num_threads=options.num_threads,
        bind_threads=options.bind_threads,
        spin_us=options.spin_us,
        prefix_cache=options.prefix_cache,
        admission=options.admission,
        prefill_rows=options.prefill_rows,
    )


def encoder_config(manifest: Manifest, options: EngineOptions) -> EngineConfig:
    """Resolve every option for an encoder, which has no pages; a step has room for one text at least.

    Raises:
        UsageError: an option is out of range.
    """
    max_context = _choose("max_context", options.max_context, manifest.shape.max_context)
    max_step_tokens = _choose("max_step_tokens", options.max_step_tokens, manifest.limits.max_step_tokens)
    if max_step_tokens < max_context:
        raise UsageError(
            f"`max_step_tokens` is {max_step_tokens}, but one text may have {max_context} tokens",
            hint="lower `max_context` too",
        )
    _check_threads_and_queue(options)
    return EngineConfig(
        num_pages=0,
        page_size=manifest.kv_cache.page_size,
        max_batch=_choose("max_batch", options.max_batch, manifest.limits.max_batch),
        max_step_tokens=max_step_tokens,
        max_context=max_context,
        max_queue=options.max_queue,
        num_threads=options.num_threads,
        bind_threads=options.bind_threads,
        spin_us=options.spin_us,
        prefix_cache=False,
    )


def _check_threads_and_queue(options: EngineOptions) -> None:
    if options.max_queue < 1:
        raise UsageError(f"`max_queue` is {options.max_queue}; allowed: at least 1")
    if options.num_threads < 0:
        raise UsageError(f"`num_threads` is {options.num_threads}; allowed: 0 (one a core) or more")
    if not 0 <= options.spin_us <= _MOST_SPIN_US:
        raise UsageError(f"`spin_us` is {options.spin_us}; allowed: 0 (sleep at once) to {_MOST_SPIN_US} (a second)")


def kv_bytes(manifest: Manifest, num_pages: int, num_window_pages: int) -> int:
    """Bytes of so many pages, and so many in the layers with a window."""
    return manifest.kv_cache.bytes_of(manifest.shape.num_layers, num_pages, num_window_pages)


def _most_window_pages(manifest: Manifest, max_batch: int, max_step_tokens: int) -> int:
    """Pages for the layers with a window: what the engine asks for (`Limits::MostWindowPages`), and as many again for
    prefixes that are to be found in the cache."""
    kv_cache = manifest.kv_cache
    if not kv_cache.window:
        return 0
    each = kv_cache.window_pages(manifest.shape.max_context)
    return 2 * (max_batch * each + math.ceil(max_step_tokens / kv_cache.page_size) + 1)


def available_memory() -> int:
    """Bytes that this process can still take: the machine's, or less where a control group limits it."""
    available = psutil.virtual_memory().available
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return available
    return available if limit == "max" else max(0, min(available, int(limit) - used))


def _affordable_pages(manifest: Manifest, window_pages: int, kv_cache_memory: int | None, free: int) -> int:
    """Pages that `kv_cache_memory` holds, or what is free where nobody chose; layers with a window have room for
    `window_pages` of them at most."""
    page_bytes = kv_bytes(manifest, 1, 1)
    if kv_cache_memory is None:
        return max(1, _pages_in(manifest, window_pages, free))
    if kv_cache_memory < page_bytes:
        context = manifest.shape.max_context
        pages = math.ceil(context / manifest.kv_cache.page_size)
        needed = kv_bytes(manifest, pages, manifest.kv_cache.window_pages(context))
        raise UsageError(
            f"`kv_cache_memory` is {kv_cache_memory} bytes, but one page of this model takes {page_bytes}",
            hint=f"A context of {context} tokens takes {needed} bytes.",
        )
    return _pages_in(manifest, window_pages, kv_cache_memory)


def _pages_in(manifest: Manifest, window_pages: int, memory: int) -> int:
    few = memory // kv_bytes(manifest, 1, 1)
    if few <= window_pages or not manifest.kv_cache.window:
        return few
    full_bytes = kv_bytes(manifest, 1, 0)
    rest = memory - kv_bytes(manifest, 0, window_pages)
    return rest // full_bytes if full_bytes else _MOST_PAGES


def _free(available: int | None) -> int:
    return int((available_memory() if available is None else available) * _DEFAULT_SHARE)


def _free_on(manifest: Manifest, device: DeviceRoom) -> int:
    """Bytes for pages on a device, which holds the weights and the working memory too."""
    if device.available is None:
        return _UNKNOWN_ROOM
    taken = sum(weight.bytes for weight in manifest.weights)
    # Each function keeps its own; what recordings keep is rounded up, to twice at most (cpp/model/step_memory.h).
    taken += 2 * sum(manifest.library.memory.values())
    return max(0, int((device.available - taken) * _DEVICE_SHARE))


def _most_pages(manifest: Manifest, device: DeviceRoom | None) -> tuple[int, str]:
    """Pages that the type of their numbers, and a tensor of the device, can hold; and which of them it is."""
    bounds = [(_MOST_PAGES, "pages are numbered in int32")]
    if device is not None:
        kv_cache, tensor = manifest.kv_cache, "the pages of a layer are one tensor of the device"
        bounds.append((_MOST_ELEMENTS // kv_cache.page_elements, f"{tensor}, whose elements are counted in int32"))
        if device.largest is not None:
            fitting = device.largest // kv_cache.page_bytes
            bounds.append((fitting, f"{tensor}, which has at most {device.largest} bytes"))
    most, why = min(bounds)
    return max(1, most), why


def _check_asked(manifest: Manifest, options: EngineOptions, most: int, why: str) -> None:
    """Raises a UsageError if somebody asked for more pages than there can be, or for a context that needs more."""
    if options.kv_cache_memory is not None:
        holds = kv_bytes(manifest, most, most)
        raise UsageError(
            f"`kv_cache_memory` is {options.kv_cache_memory} bytes, but pages take at most {holds}, since {why}",
            hint="leave it out, and there are as many pages as the device can hold",
        )
    tokens = most * manifest.kv_cache.page_size
    if options.max_context is not None and options.max_context > tokens:
        raise UsageError(
            f"`max_context` is {options.max_context}, but pages hold at most {tokens} tokens, since {why}",
            hint="ask for a shorter context, or compile the model with a kv_cache.dtype of fewer bytes",
        )


def _choose(option: str, chosen: int | None, limit: int) -> int:
    if chosen is None:
        return limit
    if not 1 <= chosen <= limit:
        raise UsageError(f"`{option}` is {chosen}; allowed: 1 to {limit}, the limit of the compiled model")
    return chosen
