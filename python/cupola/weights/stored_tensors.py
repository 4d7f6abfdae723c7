"""How single weights lie in a Hugging Face folder: plainly, with scales beside them, or packed into words.

Owns the layouts: which tensors make up one weight matrix, and how its rows are put together again. Which of them a
folder uses says `folder_quantization`; what its integers become in our formats says `grid`.

Names are those of a linear layer X, which all of them present as `X.weight` of shape [N, K]:

    plain                X.weight                                                          floats
    scaled               X.weight (8-bit floats or integers), X.weight_scale               w = scale * weight
                         (or _scale_inv, a factor too), X.weight_zero_point
    compressed-tensors   X.weight_packed int32 [N, K*b/32], X.weight_scale [N, G], X.weight_shape,
                         X.weight_zero_point int32 [N*b/32, G], X.weight_g_idx             codes + 2^(b-1)
    GPTQ                 X.qweight int32 [K*b/32, N], X.qzeros int32 [G, N*b/32], X.scales [G, N], X.g_idx [K]
    AWQ (gemm)           X.qweight int32 [K, N/8], X.qzeros int32 [G, N/8], X.scales [G, N]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cupola.errors import ModelError, UnsupportedError
from cupola.quantize.formats import GROUP, Format, Quantized
from cupola.weights.checkpoint import Keeping, TensorInfo
from cupola.weights.grid import Grid, unpack
from cupola.weights.safetensors_files import FLOATS, HINT_AGAIN, SafetensorsFiles

_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the column of eight that the k-th nibble of a word belongs to
_PACKED_BITS = (2, 4, 8)


class StoredTensor(Protocol):
    """One tensor of a folder, as a checkpoint presents it."""

    @property
    def info(self) -> TensorInfo: ...

    def rows(self, start: int, stop: int, *, exact: bool) -> np.ndarray | Quantized:
        """As `Checkpoint.read_rows`."""
        ...


class PlainTensor:
    """Floats."""

    def __init__(self, files: SafetensorsFiles, name: str) -> None:
        self._files, self._name = files, name
        self.info = TensorInfo(name, files.shape(name), Format.F32, files.dtype(name))

    def rows(self, start: int, stop: int, *, exact: bool) -> np.ndarray:  # noqa: ARG002
        return self._files.read_floats(self._name, slice(start, stop))


class ScaledFloats:
    """8-bit floats with a scale for the tensor, for a row, for a group of a row's inputs, or for a block."""

    def __init__(self, files: SafetensorsFiles, name: str, scale: str, block: tuple[int, int] | None) -> None:
        self._files, self._name = files, name
        self._scale = Scale(files, scale, files.shape(name), block)
        self.info = TensorInfo(name, files.shape(name), Format.F32, f"{files.dtype(name)} {self._scale.what}")

    def rows(self, start: int, stop: int, *, exact: bool) -> np.ndarray:  # noqa: ARG002
        return self._files.read_floats(self._name, slice(start, stop)) * self._scale.of_inputs(start, stop)


class Scale:
    """The scales beside a matrix, whose shape says what one belongs to.

    Raises (on construction):
        ModelError: the shape fits nothing.
    """

    def __init__(
        self, files: SafetensorsFiles, name: str, shape: tuple[int, ...], block: tuple[int, int] | None
    ) -> None:
        self._files, self._name, self._inputs = files, name, shape[-1]
        own = files.shape(name)
        rows, inputs = shape[0], shape[-1]
        self._block = None
        if len(shape) != 2:
            own = (-1,)
        if own in ((), (1,), (1, 1)):
            self.what, self.groups = "with one scale", 0
        elif block is not None and own == (-(-rows // block[0]), -(-inputs // block[1])):
            self._block, self.groups = block, own[1]
            self.what = f"in blocks of {block[0]}x{block[1]}"
        elif own == (rows,) or (own[:1] == (rows,) and len(own) == 2 and own[1] and inputs % own[1] == 0):
            self.groups = own[1] if len(own) == 2 else 1
            self.what = "by outputs" if self.groups == 1 else f"in groups of {inputs // self.groups}"
        else:
            raise ModelError(
                f"tensor {name} of shape {list(files.shape(name))} does not scale a matrix of shape {list(shape)}",
                hint=HINT_AGAIN,
            )

    def of_groups(self, start: int, stop: int) -> np.ndarray:
        """float32 [rows, G], of a scale that is not in blocks."""
        if not self.groups:
            whole = self._files.read_floats(self._name).reshape(1, 1)
            return np.broadcast_to(whole, (stop - start, 1))
        return self._files.read_floats(self._name, slice(start, stop)).reshape(stop - start, self.groups)

    def of_inputs(self, start: int, stop: int) -> np.ndarray:
        """float32 [rows, K], or of a shape that NumPy makes that of."""
        if self._block is None:
            groups = self.of_groups(start, stop)
            return groups if groups.shape[1] == 1 else np.repeat(groups, self._inputs // groups.shape[1], axis=1)
        high, wide = self._block
        first, last = start // high, -(-stop // high)
        blocks = self._files.read_floats(self._name, slice(first, last))
        rows = blocks[np.arange(start, stop) // high - first]
        return np.repeat(rows, wide, axis=1)[:, : self._inputs]


@dataclass(frozen=True, slots=True)
class Codes:
    """What is known of a matrix of integers before it is read.

    Args:
        method: whose layout it is, to show.
        symmetric: zero points are the middle of the codes throughout.
        halves: the scales are float16.
        groups: for each input its group, where groups are not neighbours.
    """

    name: str
    method: str
    shape: tuple[int, int]
    bits: int
    num_groups: int
    symmetric: bool
    halves: bool
    groups: np.ndarray | None = None

    @property
    def info(self) -> TensorInfo:
        length = self.shape[1] // max(self.num_groups, 1)
        how = "by outputs" if self.num_groups == 1 else f"in groups of {length}"
        if self.groups is not None:
            how += ", in the order of activations"
        what = f"{self.method} int{self.bits} {how}" + ("" if self.symmetric else ", with zero points")
        if not self.kept:
            return TensorInfo(self.name, self.shape, Format.Q8, what, Keeping.ROUNDED)
        exact = self.halves and (self.symmetric or self.bits == 2)
        if self.bits == 8 and not self.symmetric:
            keeping = Keeping.ROUNDED
        else:
            keeping = Keeping.EXACT if exact else Keeping.INTEGERS
        return TensorInfo(self.name, self.shape, self._format, what, keeping)

    @property
    def kept(self) -> bool:
        """Whether groups of 32 neighbours have one scale, so that the integers can stay."""
        whole = self.num_groups > 0 and self.shape[1] % self.num_groups == 0
        return self.groups is None and whole and self.shape[1] // self.num_groups % GROUP == 0

    @property
    def _format(self) -> Format:
        if self.bits == 8:
            return Format.Q8
        return Format.Q4S if self.symmetric or self.bits == 2 else Format.Q4

    def present(self, grid: Grid, exact: bool) -> np.ndarray | Quantized:
        """The rows of `grid` as `Checkpoint.read_rows` gives them. ModelError as `Grid.quantized`."""
        if exact or not self.kept:
            return grid.floats()
        try:
            return grid.quantized(self._format)
        except ModelError as error:
            raise ModelError(f"tensor {self.name}: {error.message}", hint=HINT_AGAIN) from error


class ScaledIntegers:
    """int8 with scales, and perhaps zero points, as compressed-tensors has them in W8A8 folders."""

    def __init__(self, files: SafetensorsFiles, name: str, scale: str, block: tuple[int, int] | None) -> None:
        self._files, self._name = files, name
        self._scale = Scale(files, scale, files.shape(name), block)
        rows, inputs = files.shape(name)
        if self._scale.what.startswith("in blocks"):
            raise UnsupportedError(f"tensor {name} holds integers {self._scale.what}", hint="Use another checkpoint.")
        zero = f"{name}_zero_point"
        self._zero = zero if zero in files else None
        halves = files.dtype(scale) == "F16"
        groups = max(self._scale.groups, 1)
        self._codes = Codes(name, "W8A8", (rows, inputs), 8, groups, self._zero is None, halves)
        self.info = self._codes.info

    def rows(self, start: int, stop: int, *, exact: bool) -> np.ndarray | Quantized:
        codes = self._files.read(self._name, slice(start, stop)).astype(np.int16)
        scale = self._scale.of_groups(start, stop)
        zero = np.zeros(scale.shape, np.int16)
        if self._zero is not None:
            one = len(self._files.shape(self._zero)) == 0 or self._files.shape(self._zero)[0] == 1
            found = self._files.read(self._zero, slice(None) if one else slice(start, stop)).astype(np.int16)
            zero = np.broadcast_to(found.reshape(1 if one else stop - start, -1), scale.shape)
        return self._codes.present(Grid(codes, scale, zero), exact)


class PackedIntegers:
    """compressed-tensors' `pack-quantized`."""

    def __init__(self, files: SafetensorsFiles, layer: str) -> None:
        self._files, self._layer = files, layer
        words = files.shape(f"{layer}.weight_packed")
        rows, inputs = (int(extent) for extent in files.read(f"{layer}.weight_shape"))
        bits = _bits(layer, words[-1] * 32, inputs)
        scale = f"{layer}.weight_scale"
        self._scale = Scale(files, scale, (rows, inputs), None)
        zero = f"{layer}.weight_zero_point"
        self._zero = zero if zero in files else None
        groups = _group_order(files, f"{layer}.weight_g_idx", inputs, max(self._scale.groups, 1))
        self._codes = Codes(
            f"{layer}.weight",
            "compressed-tensors",
            (rows, inputs),
            bits,
            max(self._scale.groups, 1),
            self._zero is None,
            files.dtype(scale) == "F16",
            groups,
        )
        self.info = self._codes.info

    def rows(self, start: int, stop: int, *, exact: bool) -> np.ndarray | Quantized:
        bits, inputs = self._codes.bits, self._codes.shape[1]
        words = self._files.read(f"{self._layer}.weight_packed", slice(start, stop))
        scale = self._scale.of_groups(start, stop)
        zero = np.full(scale.shape, 1 << (bits - 1), np.int16)
        if self._zero is not None:
            zero = self._zeros(self._zero, start, stop)
        return self._codes.present(Grid(unpack(words, bits)[:, :inputs], scale, zero, self._codes.groups), exact)

    def _zeros(self, name: str, start: int, stop: int) -> np.ndarray:
        """Packed along outputs."""
        each = 32 // self._codes.bits
        words = self._files.read(name, slice(start // each, -(-stop // each)))
        first = start - start // each * each
        return unpack(words.T, self._codes.bits).T[first : first + stop - start]


class GptqIntegers:
    """GPTQ; `zero_offset` is what the file's zero points lack (1 in its first version)."""

    def __init__(self, files: SafetensorsFiles, layer: str, zero_offset: int, symmetric: bool) -> None:
        self._files, self._layer, self._offset = files, layer, zero_offset
        groups, rows = files.shape(f"{layer}.scales")
        bits = _bits(layer, files.shape(f"{layer}.qzeros")[1] * 32, rows)
        inputs = files.shape(f"{layer}.qweight")[0] * 32 // bits
        self._codes = Codes(
            f"{layer}.weight",
            "GPTQ",
            (rows, inputs),
            bits,
            groups,
            symmetric,
            files.dtype(f"{layer}.scales") == "F16",
            _group_order(files, f"{layer}.g_idx", inputs, groups),
        )
        self.info = self._codes.info

    def rows(self, start: int, stop: int, *, exact: bool) -> np.ndarray | Quantized:
        bits, each, every = self._codes.bits, 32 // self._codes.bits, slice(None)
        words = self._files.read(f"{self._layer}.qweight", every, slice(start, stop))
        zeros = self._files.read(f"{self._layer}.qzeros", every, slice(start // each, -(-stop // each)))
        first = start - start // each * each
        zero = unpack(zeros, bits)[:, first : first + stop - start].T + np.int16(self._offset)
        scale = self._files.read(f"{self._layer}.scales", every, slice(start, stop)).T.astype(np.float32)
        # A zero point of 0 has no predecessor: the first version writes the largest code for it.
        zero = zero & np.int16((1 << bits) - 1)
        return self._codes.present(Grid(unpack(words.T, bits), scale, zero, self._codes.groups), exact)


class AwqIntegers:
    """AWQ's `gemm` layout: eight outputs in a word, in an order of its own."""

    def __init__(self, files: SafetensorsFiles, layer: str) -> None:
        self._files, self._layer = files, layer
        groups, rows = files.shape(f"{layer}.scales")
        inputs, words = files.shape(f"{layer}.qweight")
        if words * 8 != rows:
            raise ModelError(f"{layer}.qweight has {words} words for {rows} outputs of 4 bits", hint=HINT_AGAIN)
        halves = files.dtype(f"{layer}.scales") == "F16"
        self._codes = Codes(f"{layer}.weight", "AWQ", (rows, inputs), 4, groups, False, halves)
        self.info = self._codes.info

    def rows(self, start: int, stop: int, *, exact: bool) -> np.ndarray | Quantized:
        first, last = start // 8, -(-stop // 8)
        inner = slice(start - 8 * first, stop - 8 * first)
        codes, zero = (
            _awq_columns(self._files.read(f"{self._layer}.{part}", slice(None), slice(first, last)))[:, inner].T
            for part in ("qweight", "qzeros")
        )
        scale = self._files.read(f"{self._layer}.scales", slice(None), slice(start, stop)).T.astype(np.float32)
        return self._codes.present(Grid(np.ascontiguousarray(codes), scale, zero), exact)


def _awq_columns(words: np.ndarray) -> np.ndarray:
    nibbles = unpack(words, 4).reshape(len(words), -1, 8)
    columns = np.empty_like(nibbles)
    columns[..., _AWQ_ORDER] = nibbles
    return columns.reshape(len(words), -1)


def _bits(layer: str, held: int, count: int) -> int:
    """Bits of a code, where `count` of them take `held` bits, filled up to a whole word."""
    for bits in _PACKED_BITS:
        if -(-count * bits // 32) * 32 == held:
            return bits
    raise UnsupportedError(
        f"{layer} is packed with {held / max(count, 1):g} bits a weight",
        hint=f"Cupola reads packed integers of {', '.join(map(str, _PACKED_BITS))} bits.",
    )


def _group_order(files: SafetensorsFiles, name: str, inputs: int, groups: int) -> np.ndarray | None:
    """The group of each input, or None where groups are neighbours, in order."""
    if name not in files:
        return None
    order = files.read(name)
    length = -(-inputs // groups)
    if order.min(initial=0) < 0:  # compressed-tensors' mark of none
        return None
    if order.shape != (inputs,) or order.max(initial=0) >= groups:
        raise ModelError(f"tensor {name} does not give {inputs} inputs one of {groups} groups each", hint=HINT_AGAIN)
    return None if (order == np.arange(inputs) // length).all() else order


def is_float8(files: SafetensorsFiles, name: str) -> bool:
    """Whether a tensor holds 8-bit floats."""
    return files.dtype(name) in FLOATS and files.dtype(name).startswith("F8")
