"""What a model asks of a checkpoint: its parameters, in the order of `forward`'s arguments."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cupola.quantize.formats import Format


class Role(str, Enum):
    """What a parameter is for; a scheme chooses a format by role."""

    VECTOR = "vector"  # norm weights, biases, tables: plain float32, never quantized
    LINEAR = "linear"
    EMBEDDING = "embedding"  # the token table, and the output matrix (which is often the same)
    TABLE = "table"  # rows that are looked up and never multiplied: plain rows of f32 or f16
    ROUTER = "router"  # scores of experts: floats, since a choice follows from them


@dataclass(frozen=True, slots=True)
class Source:
    """One tensor of the checkpoint, and what is taken of it.

    Args:
        name: its Hugging Face name.
        shape: the shape that the configuration demands of it.
        order: the rows that are taken, in this order; None: all, as they lie.
        transposed: it lies as [inputs, outputs]; rows are its columns.
        offset: added to every value.
        index: the tensor is a stack of matrices or vectors, of which this one is meant; None: it is no stack.
        inputs: of a transposed tensor, the inputs that are taken: from one, up to the other; None: all.
    """

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...] | None = None
    transposed: bool = False
    offset: float = 0.0
    index: int | None = None
    inputs: tuple[int, int] | None = None

    @property
    def one(self) -> tuple[int, ...]:
        """The shape of the one matrix or vector that it takes rows of, outputs first."""
        shape = self.shape if self.index is None else self.shape[1:]
        if self.inputs is not None:
            shape = (self.inputs[1] - self.inputs[0], *shape[1:])
        return shape[::-1] if self.transposed else shape

    @property
    def rows(self) -> int:
        """How many rows it gives."""
        return self.one[0] if self.order is None else len(self.order)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One weight argument of the compiled library.

    Args:
        name: its name in the compiled model, such as `layers.0.attention.qkv`.
        role: what it is for.
        sources: checkpoint tensors, concatenated along their first axis.
        format: the packed format (F32 for a vector, which is stored plain).
    """

    name: str
    role: Role
    sources: tuple[Source, ...]
    format: Format

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape before packing: rows add up over the sources."""
        return (sum(source.rows for source in self.sources), *self.sources[0].one[1:])
