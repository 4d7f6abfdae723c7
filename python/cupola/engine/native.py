"""The native engine as Python sees it, and the door to all that is native.

It turns frozen values into native arguments and native results into frozen values, and refuses what the engine
refuses with a sentence. It knows no text and no HTTP.
"""

from __future__ import annotations

import threading
import weakref
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from cupola.engine.histogram import HistogramCounts
from cupola.engine.native_library import LIBRARY_VARIABLE, first_line, native
from cupola.engine.native_model import NativeModel, device_room, load_compiled, scripted
from cupola.engine.packing import pack_request, signed_word, unpack_deltas
from cupola.engine.request import (
    MAX_LOGPROBS,
    AdmissionPolicy,
    Delta,
    EngineConfig,
    EngineStats,
    GenerateRequest,
    SamplingParams,
)
from cupola.errors import ContextLengthError, EngineError, OverloadedError, RequestError

__all__ = ["LIBRARY_VARIABLE", "NativeEngine", "NativeModel", "device_room", "load_compiled", "native", "scripted"]

_QUEUE_FULL, _DRAINING, _TOO_LONG, _BAD_TOKEN, _STOPPED = 1, 2, 3, 4, 5
_MOST = 1 << 30  # sizes and their sums fit 32 bits
_FORESIGHTS: tuple[AdmissionPolicy, ...] = get_args(AdmissionPolicy)
_INT32_MAX = (1 << 31) - 1


class NativeEngine:
    """One engine thread over one model. Every method may be called from any thread.

    Every request that `add` accepted ends with exactly one Delta that has a finish_reason, also when the engine
    fails or is closed.
    """

    def __init__(self, model: NativeModel, config: EngineConfig, *, check_every_step: bool = False) -> None:
        """Start the engine thread; returns when the model is ready.

        Raises:
            EngineError: a size that cannot be, not enough memory, or a model in use by another engine.
        """
        _check_config(config, model)
        try:
            self._handle = native("engine.create")(
                model.handle,
                config.num_pages,
                config.num_window_pages,
                config.max_batch,
                config.max_step_tokens,
                config.max_context,
                config.max_queue,
                config.num_threads,
                config.bind_threads,
                config.spin_us,
                config.prefix_cache,
                _FORESIGHTS.index(config.admission),
                config.prefill_rows,
                check_every_step,
            )
        except Exception as error:
            raise EngineError(f"the engine cannot start: {first_line(error)}") from error
        self._model = model
        self._config = config
        self._live: set[int] = set()
        self._live_lock = threading.Lock()
        # Also runs at interpreter exit: the thread must end before the interpreter's memory does.
        self._finalizer = weakref.finalize(self, native("engine.close"), self._handle)

    @property
    def max_sequence_tokens(self) -> int:
        """The most tokens, prompt and output together, that one request can have: the context or the whole pool."""
        return min(self._config.max_context, self._config.num_pages * self._model.page_size + 1)

    @property
    def event_fd(self) -> int:
        """A descriptor that is readable when `take` has something, and when the engine died."""
        return int(native("engine.event_fd")(self._handle))

    @property
    def alive(self) -> bool:
        """False once the engine has given up after repeated failures, or was closed."""
        return self._finalizer.alive and bool(native("engine.alive")(self._handle))

    @property
    def failure(self) -> str | None:
        """Why the engine gave up."""
        return str(native("engine.failure")(self._handle)) or None

    def add(self, request: GenerateRequest) -> None:
        """Queue a request.

        Raises:
            RequestError: a parameter or a token id out of range, or an id that is in use.
            ContextLengthError: prompt and max_tokens can never fit the context or the pages.
            OverloadedError: the queue is full, or the engine drains.
            EngineError: the engine has failed or is closed.
        """
        sampling = request.sampling
        _check_sampling(sampling)
        if abs(request.priority) > _INT32_MAX:
            raise RequestError(f"priority is {request.priority}, but must be within +-{_INT32_MAX}", param="priority")
        if not request.token_ids:
            raise RequestError("the prompt is empty", param="prompt")
        with self._live_lock:
            if request.id in self._live:
                raise RequestError(f"request id {request.id} is in use", param="id")
            self._live.add(request.id)
        try:
            grammar = request.grammar.handle if request.grammar else None
            refusal = native("engine.add")(self._handle, pack_request(request), grammar)
            if refusal:
                raise self._refused(refusal, request)
        except BaseException:
            with self._live_lock:
                self._live.discard(request.id)
            raise

    def abort(self, request_id: int) -> None:
        """End a request with ABORT; nothing happens if it has ended already."""
        native("engine.abort")(self._handle, request_id)

    def unpin(self, token_ids: Sequence[int], cache_seed: int = 0) -> None:
        """Let the pages go that a request with this prompt and `pin_prefix` pinned; unknown prompts are ignored."""
        native("engine.unpin")(self._handle, signed_word(cache_seed), array("i", token_ids).tobytes())

    def take(self) -> list[Delta]:
        """Everything published since the last call, oldest first. Never blocks."""
        deltas = list(unpack_deltas(*native("engine.take")(self._handle)))
        with self._live_lock:
            self._live.difference_update(delta.request_id for delta in deltas if delta.finish_reason)
        return deltas

    def stats(self) -> EngineStats:
        """A snapshot of counters and gauges, as of the last step."""
        packed, step_seconds, age = native("engine.stats")(self._handle)
        values: tuple[Any, ...] = (*memoryview(packed).cast("q"), step_seconds, age)
        return EngineStats(*values)

    def histograms(self) -> Mapping[str, HistogramCounts]:
        """What the engine measures of its steps, by name: queue_seconds, prefill_seconds, inter_token_seconds and
        step_tokens."""
        return {
            str(name): HistogramCounts(tuple(memoryview(bounds).cast("d")), tuple(memoryview(counts).cast("q")), total)
            for name, bounds, counts, total in native("engine.histograms")(self._handle)
        }

    def drain(self) -> None:
        """Refuse new requests from now on; those accepted run to their end. Returns at once."""
        native("engine.drain")(self._handle)

    def close(self) -> None:
        """End every request with ABORT, stop the thread and wait for it. `take` still works. May be called again."""
        self._finalizer()

    def _refused(self, refusal: int, request: GenerateRequest) -> Exception:
        if refusal == _QUEUE_FULL:
            return OverloadedError(f"{self._config.max_queue} requests are waiting already", hint="try again later")
        if refusal == _DRAINING:
            return OverloadedError("the engine is shutting down and takes no new requests")
        if refusal == _TOO_LONG:
            return ContextLengthError(
                f"the prompt has {len(request.token_ids)} tokens and max_tokens is {request.sampling.max_tokens}, "
                f"but one request can have {self.max_sequence_tokens} tokens in all",
                param="max_tokens" if len(request.token_ids) < self.max_sequence_tokens else "prompt",
                code="context_length_exceeded",
                hint="shorten the prompt or lower max_tokens",
            )
        if refusal == _BAD_TOKEN:
            return RequestError(
                f"the request has token ids outside of 0 .. {self._model.vocab_size - 1}", param="prompt"
            )
        return EngineError(f"the engine has failed: {self.failure}" if self.failure else "the engine is closed")


def _check_config(config: EngineConfig, model: NativeModel) -> None:
    for name in ("num_pages", "page_size", "max_batch", "max_step_tokens", "max_context", "max_queue"):
        if not 1 <= getattr(config, name) <= _MOST:
            raise EngineError(f"{name} is {getattr(config, name)}, but must be between 1 and {_MOST}")
    if config.page_size != model.page_size:
        raise EngineError(f"page_size is {config.page_size}, but the model has pages of {model.page_size}")
    if config.num_pages * config.page_size > _MOST:
        raise EngineError(f"{config.num_pages} pages of {config.page_size} tokens are more than {_MOST} token slots")


def _check_sampling(sampling: SamplingParams) -> None:
    if sampling.seed is None or sampling.max_tokens is None:
        raise RequestError("seed and max_tokens must be resolved before a request reaches the engine")
    allowed = (
        ("temperature", 0.0 <= sampling.temperature <= 100.0, "between 0 and 100"),
        ("top_p", 0.0 < sampling.top_p <= 1.0, "above 0 and at most 1"),
        ("min_p", 0.0 <= sampling.min_p <= 1.0, "between 0 and 1"),
        ("top_k", 0 <= sampling.top_k <= _INT32_MAX, "at least 0"),
        ("max_tokens", 0 <= sampling.max_tokens <= _INT32_MAX, "at least 0"),
        ("min_tokens", 0 <= sampling.min_tokens <= _INT32_MAX, "at least 0"),
        ("repetition_penalty", 0.0 < sampling.repetition_penalty <= 10.0, "above 0 and at most 10"),
        ("presence_penalty", abs(sampling.presence_penalty) <= 2.0, "between -2 and 2"),
        ("frequency_penalty", abs(sampling.frequency_penalty) <= 2.0, "between -2 and 2"),
        ("logprobs", 0 <= (sampling.logprobs or 0) <= MAX_LOGPROBS, f"at most {MAX_LOGPROBS}"),
        ("prompt_logprobs", 0 <= (sampling.prompt_logprobs or 0) <= MAX_LOGPROBS, f"at most {MAX_LOGPROBS}"),
    )
    for name, valid, rule in allowed:
        if not valid:
            raise RequestError(f"{name} is {getattr(sampling, name)}, but must be {rule}", param=name)
