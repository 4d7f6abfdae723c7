"""From a checkpoint to packed shards: read, quantize or repack, write, a few thousand rows at a time.

Owns the walk over a model's parameters. What a parameter is made of says `models`, how a tensor is read the
checkpoint, how rows become bytes `quantize`, and how bytes become files `shards`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cupola.errors import ModelError
from cupola.manifest import Weight
from cupola.quantize.floats import FLOAT_DTYPES, narrow
from cupola.quantize.formats import Format, Quantized, stacked
from cupola.quantize.layouts import OUT_BLOCK, pack, packed_dtype, packed_shape, words_dtype, words_shape
from cupola.quantize.parameter import Parameter, Role, Source
from cupola.quantize.rounding import dequantize, quantize, requantize
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.shards import ShardTensor, ShardWriter, split

VECTOR = "vector"
_CHUNK_ELEMENTS = 4 << 20  # weights converted at once: 16 MiB as float32


def convert(
    checkpoint: Checkpoint,
    parameters: Sequence[Parameter],
    folder: Path,
    on_progress: Callable[[int, int], None],
    *,
    words: bool = False,
    importance: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> tuple[Weight, ...]:
    """Writes every parameter, packed, into `weights-00001.safetensors` and so on in `folder`.

    Memory beyond the interpreter's own stays at some hundred MiB, whatever the size of the model.

    Args:
        checkpoint: where the sources are read from.
        parameters: what to write, in this order.
        folder: an existing folder.
        on_progress: called with (bytes written, bytes in all) after every piece of work.
        importance: parameter -> float32 [inputs], whose errors count how much; see `rounding.quantize`.
        words: matrices and tables are declared as words of 32 bits, for devices that read nothing smaller; the bytes
            are the same.

    Returns:
        One entry a parameter, in order: where it lies and what it is.

    Raises:
        ModelError: a tensor is missing, or of another shape than the configuration demands, or cannot be read.
        StorageError: the folder cannot be written, or the disk is full. No shard of this call is left behind then.
    """
    check_sources(checkpoint, parameters)
    by_name = {parameter.name: parameter for parameter in parameters}
    if len(by_name) != len(parameters):
        raise ModelError("two parameters of the model have one name")
    shards = split(_target(parameter, words) for parameter in parameters)
    total, done = sum(tensor.size for shard in shards for tensor in shard), 0
    weights: list[Weight] = []
    written: list[Path] = []
    try:
        for number, tensors in enumerate(shards, start=1):
            path = folder / f"weights-{number:05d}.safetensors"
            with ShardWriter(path, tensors) as writer:
                for tensor in tensors:
                    parameter = by_name[tensor.name]
                    for piece in _pieces(checkpoint, parameter, importance.get(tensor.name)):
                        writer.write(piece)
                        done += piece.nbytes
                        on_progress(done, total)
                    weights.append(_weight(parameter, tensor, path))
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return tuple(weights)


def check_sources(checkpoint: Checkpoint, parameters: Sequence[Parameter]) -> None:
    """Raises a ModelError unless every source of every parameter is there and has its shape."""
    for parameter in parameters:
        for source in parameter.sources:
            info = checkpoint.tensors.get(source.name)
            if info is None:
                raise ModelError(
                    f"{checkpoint.path} has no tensor {source.name}",
                    hint="The checkpoint is incomplete, or its configuration belongs to another model.",
                )
            if info.shape != source.shape:
                raise ModelError(
                    f"{checkpoint.path} has tensor {source.name} of shape {list(info.shape)}, "
                    f"but its configuration demands {list(source.shape)}",
                    hint="The checkpoint is damaged, or its configuration belongs to another model.",
                )


def packed_size(parameter: Parameter) -> int:
    """Bytes of a parameter as `convert` writes it."""
    return _target(parameter).size


def _target(parameter: Parameter, words: bool = False) -> ShardTensor:
    if parameter.role is Role.VECTOR:
        return ShardTensor(parameter.name, np.dtype(np.float32), parameter.shape)
    rows, inputs = parameter.shape
    if parameter.role is Role.TABLE:
        dtype = FLOAT_DTYPES[parameter.format]
        word = words_dtype(parameter.format) if words else dtype
        return ShardTensor(parameter.name, word, (rows, inputs * dtype.itemsize // word.itemsize))
    dtype_of, shape_of = (words_dtype, words_shape) if words else (packed_dtype, packed_shape)
    return ShardTensor(parameter.name, dtype_of(parameter.format), shape_of(parameter.format, (rows, inputs)))


def _weight(parameter: Parameter, tensor: ShardTensor, path: Path) -> Weight:
    return Weight(
        name=parameter.name,
        file=path.name,
        format=VECTOR if parameter.role is Role.VECTOR else parameter.format.value,
        dtype=tensor.dtype.name,
        shape=tensor.shape,
    )


def packed(checkpoint: Checkpoint, parameter: Parameter) -> np.ndarray:
    """One parameter as `convert` writes it, in memory."""
    target = _target(parameter)
    return np.concatenate([*_pieces(checkpoint, parameter)]).reshape(target.shape)


def floats(checkpoint: Checkpoint, parameter: Parameter, start: int, stop: int) -> np.ndarray:
    """Rows [start, stop) of a matrix as float32, before anything is rounded."""
    return _widened(_rows(checkpoint, replace(parameter, format=Format.F32), start, stop))


def _pieces(checkpoint: Checkpoint, parameter: Parameter, importance: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """The parameter's bytes in order, a bounded number of rows at a time."""
    if parameter.role is Role.VECTOR:
        for source in parameter.sources:
            yield _vector(checkpoint, source) + np.float32(source.offset)
        return
    rows, inputs = parameter.shape
    step = max(_CHUNK_ELEMENTS // inputs // OUT_BLOCK, 1) * OUT_BLOCK  # whole blocks, so that only the end is padded
    for start in range(0, rows, step):
        part = _rows(checkpoint, parameter, start, min(start + step, rows), importance)
        if parameter.role is Role.TABLE and not isinstance(part, Quantized):
            yield part
        else:
            yield pack(part, parameter.format)


def _vector(checkpoint: Checkpoint, source: Source) -> np.ndarray:
    """float32, of what is taken of a tensor with one value a row."""
    if source.index is None or len(source.one) > 1:
        return _widened(_read(checkpoint, source, 0, source.rows))
    values = _widened(checkpoint.read_rows(source.name, source.index, source.index + 1)).reshape(-1)
    return values if source.order is None else values[np.array(source.order)]


def _rows(
    checkpoint: Checkpoint, parameter: Parameter, start: int, stop: int, importance: np.ndarray | None = None
) -> np.ndarray | Quantized:
    """Rows [start, stop) of the parameter in its format: those of its sources, one below the other."""
    floats: list[np.ndarray] = []
    quantized: list[Quantized] = []
    first = 0
    for source in parameter.sources:
        low, high = max(start - first, 0), min(stop - first, source.rows)
        if low < high:
            part = _read(checkpoint, source, low, high, exact=not parameter.format.grouped)
            with _naming(checkpoint, source.name):
                if parameter.format is Format.Q16:
                    floats.append(_widened(part))
                elif not parameter.format.grouped:
                    floats.append(narrow(_widened(part), parameter.format))
                elif isinstance(part, Quantized):
                    quantized.append(requantize(part, parameter.format, importance))
                else:
                    quantized.append(quantize(part, parameter.format, importance))
        first += source.rows
    return stacked(quantized) if quantized else np.concatenate(floats)


def _read(
    checkpoint: Checkpoint, source: Source, low: int, high: int, *, exact: bool = False
) -> np.ndarray | Quantized:
    """Rows [low, high) of what is taken of a tensor; `exact` as in `Checkpoint.read_rows`."""
    base = 0 if source.index is None else source.index * source.shape[1]  # a stack counts as one tall matrix
    if source.transposed:
        begin, end = source.inputs or (0, source.shape[-2])
        rows = _widened(checkpoint.read_rows(source.name, base + begin, base + end, exact=True)).T
        return np.ascontiguousarray(rows[low:high] if source.order is None else rows[np.array(source.order[low:high])])
    if source.order is None:
        return checkpoint.read_rows(source.name, base + low, base + high, exact=exact)
    wanted = np.array(source.order[low:high])
    first = int(wanted.min())
    part = checkpoint.read_rows(source.name, base + first, base + int(wanted.max()) + 1, exact=exact)
    return part.take(wanted - first) if isinstance(part, Quantized) else part[wanted - first]


@contextmanager
def _naming(checkpoint: Checkpoint, name: str) -> Iterator[None]:
    """Errors of the body name the tensor."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{checkpoint.path}, tensor {name}: {error.message}", hint=error.hint) from error


def _widened(part: np.ndarray | Quantized) -> np.ndarray:
    return dequantize(part) if isinstance(part, Quantized) else part
