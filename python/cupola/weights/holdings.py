"""What becomes of a checkpoint's weights, in words: which keep their integers, and which are rounded anew."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter, Role
from cupola.weights.checkpoint import Checkpoint, Keeping, TensorInfo

_WORDS = {
    Keeping.FLOATS: "",
    Keeping.EXACT: ", kept exactly",
    Keeping.INTEGERS: ", integers kept, scales or minima rounded to float16",
    Keeping.ROUNDED: ", rounded anew",
}
# Formats that hold whatever another holds.
_HELD_BY_OTHERS = {Format.Q4S: (Format.Q4, Format.Q8), Format.MXFP4: (Format.Q8,)}


@dataclass(frozen=True, slots=True)
class Holding:
    """The weights of one type in a checkpoint that get one format; `weights` is how many numbers they are."""

    stored: str
    format: Format
    keeping: Keeping
    weights: int

    def __str__(self) -> str:
        return f"{self.stored or 'floats'} as {self.format.value}{_WORDS[self.keeping]}"


def holdings(checkpoint: Checkpoint, parameters: Iterable[Parameter]) -> tuple[Holding, ...]:
    """One entry for each type and format of the matrices, the one of the most weights first.

    Args:
        parameters: with the formats that are chosen for them.
    """
    found: Counter[tuple[str, Format, Keeping]] = Counter()
    for parameter in parameters:
        if parameter.role is Role.VECTOR:
            continue
        for source in parameter.sources:
            info = checkpoint.tensors[source.name]
            found[info.stored, parameter.format, _keeping(info, parameter.format)] += math.prod(source.shape)
    return tuple(Holding(*what, weights) for what, weights in found.most_common())


def _keeping(info: TensorInfo, fmt: Format) -> Keeping:
    """What becomes of a tensor in a format that need not be its own."""
    if not fmt.integer:  # widened, if it was quantized, by its own scales
        return Keeping.FLOATS
    if fmt is info.format or fmt in _HELD_BY_OTHERS.get(info.format, ()):
        return info.keeping
    return Keeping.FLOATS if info.keeping is Keeping.FLOATS else Keeping.ROUNDED
