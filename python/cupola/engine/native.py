"""The native engine as Python sees it: the only module that knows the names of the C++ functions.

It finds and loads the libraries, turns frozen values into native arguments and native results into frozen
values, and refuses what the engine refuses with a sentence. It knows no text and no HTTP.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tvm_ffi

from cupola.engine.packing import pack_request, unpack_deltas
from cupola.engine.request import Delta, EngineConfig, EngineStats, GenerateRequest, SamplingParams
from cupola.errors import (
    ContextLengthError,
    EngineError,
    IncompatibleError,
    ModelError,
    OverloadedError,
    RequestError,
    StorageError,
)

if TYPE_CHECKING:
    import numpy as np

    from cupola.manifest import Manifest, Weight

LIBRARY_VARIABLE = "CUPOLA_NATIVE_LIBRARY"
"""Environment variable: the path of a library to load instead of the installed one (sanitizer builds)."""

_QUEUE_FULL, _DRAINING, _TOO_LONG, _BAD_TOKEN, _STOPPED = 1, 2, 3, 4, 5
_MOST = 1 << 30  # sizes and their sums fit 32 bits
_INT32_MAX = (1 << 31) - 1


class NativeModel:
    """A loaded model: what a NativeEngine runs on. One engine at a time."""

    def __init__(self, handle: object, *, page_size: int, vocab_size: int) -> None:
        self._handle = handle
        self.page_size = page_size
        self.vocab_size = vocab_size

    def alloc_kv_cache(self, num_pages: int) -> None:
        """Allocate pages (contents undefined) for `forward`; only for a compiled model without an engine."""
        native("model.alloc_kv_cache")(self._handle, num_pages)

    def forward(
        self,
        *,
        ids: np.ndarray,
        positions: np.ndarray,
        slots: np.ndarray,
        q_indptr: np.ndarray,
        page_indptr: np.ndarray,
        page_ids: np.ndarray,
        kv_len: np.ndarray,
        out_rows: np.ndarray,
    ) -> np.ndarray:
        """Run the compiled `forward` once, on the calling thread.

        All arguments are int32 vectors: ids, positions and slots [n]; q_indptr and page_indptr [b+1]; page_ids [p];
        kv_len [b]; out_rows [m]. Returns float32 logits [m, vocab_size].
        """
        import numpy as np

        step = (ids, positions, slots, q_indptr, page_indptr, page_ids, kv_len, out_rows)
        tensors = [tvm_ffi.from_dlpack(_aligned(np.asarray(argument, dtype=np.int32))) for argument in step]
        logits = np.from_dlpack(native("model.forward")(self._handle, tensors))
        return np.array(logits[:, : self.vocab_size])


def load_compiled(folder: Path, manifest: Manifest) -> NativeModel:
    """Load the library of a compiled model and map its weights into memory, without a copy.

    The hashes of the files are the caller's to check.

    Raises:
        IncompatibleError: the library was made by other versions than the installed ones.
        ModelError: a file is missing or is not what the manifest says.
    """
    _check_stamp(manifest)
    _load_tvm_runtime()
    weights = [tvm_ffi.from_dlpack(array) for array in _map_weights(folder, manifest.weights)]
    library = folder / "lib.so"
    if not library.is_file():
        raise ModelError(f"{library} is missing", hint="compile the model again")
    try:
        handle = native("model.compiled")(
            str(library),
            manifest.functions.alloc_kv_cache,
            manifest.functions.forward,
            manifest.shape.vocab_size,
            manifest.kv_cache.page_size,
            manifest.limits.max_step_tokens,
            manifest.limits.max_batch,
            weights,
        )
    except Exception as error:
        raise ModelError(
            f"{library} cannot be loaded: {_first_line(error)}", hint="compile the model again on this machine"
        ) from error
    return NativeModel(handle, page_size=manifest.kv_cache.page_size, vocab_size=manifest.shape.vocab_size)


def scripted(
    *,
    vocab_size: int = 512,
    first_id: int = 0,
    num_ids: int = 256,
    eos_id: int | None = None,
    eos_every: int = 0,
    page_size: int = 16,
    step_us: int = 0,
    token_us: int = 0,
    fail_at_step: int = 0,
    fail_steps: int = 1,
    poison_id: int | None = None,
) -> NativeModel:
    """The deterministic model for tests; its rule is in cpp/model/scripted_model.h.

    Args:
        vocab_size: length of a row of logits.
        first_id: the first of the `num_ids` ids that it generates.
        num_ids: how many different ids it generates (at most 65536).
        eos_id: generated in place of the others for one history in `eos_every`.
        eos_every: see `eos_id`; 0 never.
        page_size: token slots a page.
        step_us: microseconds that every forward takes.
        token_us: microseconds that each of its rows takes.
        fail_at_step: the forward (counted from 1) that raises; 0 none.
        fail_steps: how many forwards in a row raise.
        poison_id: a sequence whose last token is this one gets logits of NaN.
    """
    if not 0 < num_ids <= vocab_size - first_id or first_id < 0:
        raise ValueError(f"ids {first_id} .. {first_id + num_ids - 1} are not within a vocabulary of {vocab_size}")
    if eos_id is not None and not 0 <= eos_id < vocab_size:
        raise ValueError(f"eos_id {eos_id} is not within a vocabulary of {vocab_size}")
    if page_size < 1:
        raise ValueError(f"page_size is {page_size}, but must be at least 1")
    handle = native("model.scripted")(
        vocab_size,
        first_id,
        num_ids,
        -1 if eos_id is None else eos_id,
        eos_every,
        -1 if poison_id is None else poison_id,
        page_size,
        step_us,
        token_us,
        fail_at_step,
        fail_steps,
    )
    return NativeModel(handle, page_size=page_size, vocab_size=vocab_size)


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
                model._handle,
                config.num_pages,
                config.max_batch,
                config.max_step_tokens,
                config.max_context,
                config.max_queue,
                config.num_threads,
                check_every_step,
            )
        except Exception as error:
            raise EngineError(f"the engine cannot start: {_first_line(error)}") from error
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
            refusal = native("engine.add")(self._handle, pack_request(request))
            if refusal:
                raise self._refused(refusal, request)
        except BaseException:
            with self._live_lock:
                self._live.discard(request.id)
            raise

    def abort(self, request_id: int) -> None:
        """End a request with ABORT; nothing happens if it has ended already."""
        native("engine.abort")(self._handle, request_id)

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
                f"the prompt has token ids outside of 0 .. {self._model.vocab_size - 1}", param="prompt"
            )
        return EngineError(f"the engine has failed: {self.failure}" if self.failure else "the engine is closed")


def native(name: str) -> Callable[..., Any]:
    """The C++ function registered as `cupola.NAME`; its types are known to its callers in this module only."""
    return _load_functions(name)


@cache
def _load_functions(name: str) -> Callable[..., Any]:
    _load_library()
    return cast("Callable[..., Any]", tvm_ffi.get_global_func(f"cupola.{name}"))


@cache
def _load_library() -> object:
    override = os.environ.get(LIBRARY_VARIABLE)
    try:
        if override:
            return tvm_ffi.load_module(override)
        return tvm_ffi.libinfo.load_lib_module("cupola", "cupola_native")
    except (RuntimeError, OSError) as error:
        raise EngineError(
            f"the native library cannot be loaded: {_first_line(error)}", hint="install cupola with pip"
        ) from error


@cache
def _load_tvm_runtime() -> object:
    """Load TVM's runtime library for everybody, without the cost of importing tvm."""
    # Worker threads stay where the scheduler of the system puts them: several processes may share the machine.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    spec = importlib.util.find_spec("tvm")
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / "lib" / "libtvm_runtime.so"
        if path.is_file():
            return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    raise EngineError("libtvm_runtime.so was not found", hint="install the package apache-tvm")


def _check_stamp(manifest: Manifest) -> None:
    from importlib.metadata import version

    stamp = manifest.stamp
    made_by = {"apache-tvm": stamp.tvm, "apache-tvm-ffi": stamp.tvm_ffi}
    for package, stamped in made_by.items():
        installed = version(package)
        if installed != stamped:
            raise IncompatibleError(
                f"the model {manifest.name} was compiled with {package} {stamped}, but {installed} is installed",
                hint="compile the model again",
            )


def _map_weights(folder: Path, weights: tuple[Weight, ...]) -> Iterator[np.ndarray]:
    """The tensors of `weights` in order, mapped copy-on-write (which DLPack takes for writable)."""
    import numpy as np

    headers = {name: _read_header(folder / name) for name in {weight.file for weight in weights}}
    for weight in weights:
        header, data_begin = headers[weight.file]
        entry = header.get(weight.name)
        if entry is None:
            raise ModelError(f"{weight.file} has no tensor {weight.name}", hint="compile the model again")
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        dtype = np.dtype(weight.dtype)
        if shape != weight.shape or end - begin != math.prod(shape) * dtype.itemsize:
            raise ModelError(
                f"{weight.file} has {weight.name} with shape {shape} and {end - begin} bytes, "
                f"but the manifest says {weight.shape} of {weight.dtype}",
                hint="compile the model again",
            )
        yield np.memmap(folder / weight.file, dtype=dtype, mode="c", offset=data_begin + begin, shape=shape)


def _read_header(path: Path) -> tuple[dict[str, dict[str, list[int]]], int]:
    """The header of a safetensors file, and where its data begins."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} is not a safetensors file", hint="compile the model again") from error
    header.pop("__metadata__", None)
    return header, 8 + length


def _aligned(values: np.ndarray) -> np.ndarray:
    """A copy of a vector at an address that compiled kernels accept (a multiple of 64)."""
    import numpy as np

    raw = np.empty(values.nbytes + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    copy = raw[begin : begin + values.nbytes].view(values.dtype)
    copy[:] = values
    return copy


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
        ("max_tokens", 1 <= sampling.max_tokens <= _INT32_MAX, "at least 1"),
        ("min_tokens", 0 <= sampling.min_tokens <= _INT32_MAX, "at least 0"),
    )
    for name, valid, rule in allowed:
        if not valid:
            raise RequestError(f"{name} is {getattr(sampling, name)}, but must be {rule}", param=name)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
