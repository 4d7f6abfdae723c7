"""Models that a native engine runs on: a compiled folder, and the scripted double for tests.

It loads libraries and maps weights. It knows no requests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tvm_ffi

from cupola.engine.native_devices import PLUGINS, TensorLimit, tensor_limit
from cupola.engine.native_library import first_line, load_tvm_runtime, native
from cupola.engine.room import DeviceRoom
from cupola.errors import EngineError, IncompatibleError, ModelError, StorageError

if TYPE_CHECKING:
    import numpy as np

    from cupola.manifest import Manifest, Weight


# Bits of a weight by its format, scales included; and what is left of a table of tokens under schemes of fewer bits.
_BITS = {"f32": 32, "f16": 16, "bf16": 16, "q16": 16, "q8": 8.5, "q4": 5, "q4s": 4.5, "mxfp4": 4.25}
_FEWER = {"q8": 8.5, "q3": 5}


@dataclass(frozen=True, slots=True)
class StepCounts:
    """How steps of one kind ran on a device; none where it does not record."""

    called: int
    recorded: int
    replayed: int
    """Those that were recorded in the same step included."""


class NativeModel:
    """A loaded model: what a NativeEngine runs on. One engine at a time."""

    def __init__(self, handle: object, *, page_size: int, vocab_size: int) -> None:
        self.handle = handle  # for the other native modules
        self.page_size = page_size
        self.vocab_size = vocab_size

    def alloc_kv_cache(self, num_pages: int, num_window_pages: int | None = None) -> None:
        """Allocate pages (contents undefined) for `forward`; only for a compiled model without an engine.

        Args:
            num_window_pages: for the layers with a window, if there are some; None: as many.
        """
        windows = num_pages if num_window_pages is None else num_window_pages
        native("model.alloc_kv_cache")(self.handle, num_pages, windows)

    def step_counts(self) -> tuple[StepCounts, StepCounts]:
        """How steps ran that a device can record: decodes, and what samples from them; only for a compiled model."""
        counts = tuple(native("model.step_counts")(self.handle))
        return StepCounts(*counts[:3]), StepCounts(*counts[3:])

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
        window_slots: np.ndarray | None = None,
        window_page_ids: np.ndarray | None = None,
    ) -> np.ndarray:
        """Run the compiled `forward` once, on the calling thread.

        All arguments are int32 vectors: ids, positions and slots [n]; q_indptr and page_indptr [b+1]; page_ids [p];
        kv_len [b]; out_rows [m]. Layers with a window have pages of their own: window_slots [n] and window_page_ids
        [p]; None: of the same numbers. Returns float32 logits [m, vocab_size].
        """
        import numpy as np

        windows = (
            slots if window_slots is None else window_slots,
            page_ids if window_page_ids is None else window_page_ids,
        )
        step = (ids, positions, slots, q_indptr, page_indptr, page_ids, kv_len, out_rows, *windows)
        tensors = [tvm_ffi.from_dlpack(np.array(argument, dtype=np.int32)) for argument in step]
        logits = np.from_dlpack(native("model.forward")(self.handle, tensors))
        return np.array(logits[:, : self.vocab_size])


def load_library(folder: Path, manifest: Manifest, function: str, *arguments: object) -> object:
    """Load the library of a compiled folder and map its weights into memory, without a copy.

    Args:
        function: the C++ function that makes a model of it; gets the library's path, `arguments`, and the weights.

    Raises:
        IncompatibleError: the library was made by other versions than the installed ones.
        ModelError: a file is missing or is not what the manifest says.
    """
    check_stamp(manifest)
    load_runtime(device_kind(manifest))
    check_sizes(manifest, tensor_limit(device_kind(manifest)))
    weights = map_tensors(folder, manifest.weights)
    library = folder / manifest.library.file
    if not library.is_file():
        raise ModelError(f"{library} is missing", hint="compile the model again")
    try:
        return native(function)(str(library), *arguments, weights)
    except Exception as error:
        hint = "compile the model again on this machine"
        if device_kind(manifest) != "cpu":
            hint = "compile it with fewer bits (--quant q4), or for another device"
        raise ModelError(f"{library} cannot be loaded: {first_line(error)}", hint=hint) from error


def load_compiled(folder: Path, manifest: Manifest, *, record_steps: bool = True) -> NativeModel:
    """Load the library of a compiled model, and its weights: mapped into memory, or copied to its device.

    The hashes of the files are the caller's to check.

    Args:
        record_steps: on a device that can, steps that only decode are recorded once and replayed.

    Raises:
        EngineError: the device cannot be used.
        IncompatibleError: the library was made by other versions than the installed ones.
        ModelError: a file is missing or is not what the manifest says, or the device has no room for the weights.
    """
    kind = device_kind(manifest)
    handle = load_library(
        folder,
        manifest,
        "model.compiled",
        device_of(manifest),
        manifest.functions.alloc_kv_cache,
        manifest.functions.forward,
        "" if kind == "cpu" else manifest.functions.decode,
        manifest.functions.sample,
        manifest.shape.vocab_size,
        manifest.kv_cache.page_size,
        manifest.kv_cache.window,
        tvm_ffi.Shape(manifest.kv_cache.window_layers),
        manifest.limits.max_step_tokens,
        manifest.limits.max_batch,
        record_steps,
    )
    return NativeModel(handle, page_size=manifest.kv_cache.page_size, vocab_size=manifest.shape.vocab_size)


def check_sizes(manifest: Manifest, limit: TensorLimit | None) -> None:
    """ModelError: a device with this limit does not take a tensor of the size of some weight."""
    for weight in manifest.weights:
        if limit and weight.bytes > limit.bytes:
            raise ModelError(
                f"the weight `{weight.name}` has {weight.bytes} bytes, "
                f"but a tensor of {limit.device} has at most {limit.bytes}",
                hint=_smaller(weight, limit.bytes),
            )


def _smaller(weight: Weight, most: int) -> str:
    """What to do about a weight that is larger than a tensor can be."""
    bits = _BITS.get(weight.format)
    others = [name for name, each in _FEWER.items() if bits and weight.bytes * each / bits <= most]
    if others:
        return f"compile the model with fewer bits (--quant {others[0]}), or for another device"
    return "with --quant q3 it is too large too: compile the model for the processor (--target cpu), or another device"


def device_kind(manifest: Manifest) -> str:
    """The kind of device that the library runs on, by TVM's name: cpu, cuda, webgpu, ..."""
    kind = manifest.library.target.get("kind", "llvm")
    return "cpu" if kind == "llvm" else kind


def device_of(manifest: Manifest) -> tvm_ffi.Device:
    """The device that the library runs on, for native functions."""
    return tvm_ffi.device(device_kind(manifest), 0)


def load_runtime(kind: str) -> None:
    """Load what TVM's runtime needs to use a kind of device. EngineError: it cannot be used here."""
    load_tvm_runtime()
    if kind == "cuda":
        try:
            load_tvm_runtime("libtvm_runtime_cuda.so")
        except OSError as error:
            raise EngineError(
                f"TVM's runtime for CUDA cannot be loaded: {error}",
                hint="NVIDIA's driver (libcuda.so.1) and CUDA's runtime (libcudart.so.13) have to be installed",
            ) from error
    elif kind in PLUGINS:
        PLUGINS[kind]()


def device_room(manifest: Manifest) -> DeviceRoom | None:
    """The memory of the device that the library runs on; None for the processor. EngineError: it cannot be used."""
    kind = device_kind(manifest)
    if kind == "cpu":
        return None
    load_runtime(kind)
    try:
        available = native("device.available_memory")(tvm_ffi.device(kind, 0))
    except Exception as error:
        raise EngineError(f"the device {kind}:0 cannot be used: {first_line(error)}") from error
    limit = tensor_limit(kind)
    return DeviceRoom(available=available, largest=limit.bytes if limit else None)


def scripted(
    *,
    vocab_size: int = 512,
    first_id: int = 0,
    num_ids: int = 256,
    eos_id: int | None = None,
    eos_every: int = 0,
    page_size: int = 16,
    window: int = 0,
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
        window: tokens at the end of a history that it reads through the window's pages; 0: no window.
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
        window,
        step_us,
        token_us,
        fail_at_step,
        fail_steps,
    )
    return NativeModel(handle, page_size=page_size, vocab_size=vocab_size)


def check_stamp(manifest: Manifest) -> None:
    """IncompatibleError unless the library was made by the installed versions."""
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


def map_tensors(folder: Path, weights: tuple[Weight, ...]) -> list[object]:
    """The weights of a compiled model as native tensors, mapped into memory. ModelError, StorageError: a wrong file."""
    return [tvm_ffi.from_dlpack(array) for array in _map_weights(folder, weights)]


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
