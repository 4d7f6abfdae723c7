"""What an encoder may ask of a device, as `operations.py` says it for decoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tvm.relax.frontend import nn

from cupola.kernels.operations import PLAIN, Activation, Epilogue, Matrix
from cupola.quantize.formats import Format


@dataclass(frozen=True)
class EncoderStep:
    """The integers that describe one step: n rows of b sequences, one after the other.

    Args:
        ids: int32 [n], tokens.
        positions: int32 [n], within each sequence.
        types: int32 [n], token types (which of two texts a token belongs to).
        q_indptr: int32 [b + 1], rows of sequence s are q_indptr[s] to q_indptr[s + 1]; none is empty.
    """

    ids: nn.Tensor
    positions: nn.Tensor
    types: nn.Tensor
    q_indptr: nn.Tensor


@dataclass(frozen=True)
class Tables:
    """The tables of an encoder's input, and how position 0 is written: in row `first_position`."""

    words: nn.Tensor
    positions: nn.Tensor
    types: nn.Tensor
    first_position: int


@dataclass(frozen=True)
class Norm:
    """A layer norm: its weight and bias vectors."""

    weight: nn.Tensor
    bias: nn.Tensor
    eps: float


class EncoderOperations(Protocol):
    """The operations of one kind of device. Biases of products are added by what reads the product."""

    def vector(self, *shape: int) -> nn.Parameter:
        """Declares a plain float32 vector or table."""
        ...

    def table(self, fmt: Format, rows: int, width: int) -> nn.Parameter:
        """Declares a table of plain rows, of f32 or f16."""
        ...

    def matrix(self, fmt: Format, rows: int, inputs: int) -> Matrix:
        """Declares a packed matrix [rows, inputs]."""
        ...

    def embed(self, step: EncoderStep, tables: Tables, norm: Norm) -> nn.Tensor:
        """The norm of the sum of the tables' rows: float32 [n, width]."""
        ...

    def activation(self, x: nn.Tensor, matrix: Matrix) -> Activation:
        """x in the form in which `linear` with `matrix` wants it."""
        ...

    def linear(self, x: Activation, matrix: Matrix, epilogue: Epilogue = PLAIN) -> nn.Tensor:
        """x W^T and what follows it: float32 [n, rows of W]."""
        ...

    def attention(self, qkv: nn.Tensor, bias: nn.Tensor, step: EncoderStep) -> nn.Tensor:
        """Every row over its whole sequence: float32 [n, heads * D], from projections that lack their bias."""
        ...

    def norm(self, x: nn.Tensor, bias: nn.Tensor, norm: Norm, matrix: Matrix | None) -> tuple[nn.Tensor, Activation]:
        """norm(x + bias), and the same in the form in which `linear` with `matrix` wants it."""
        ...

    def activated(self, x: nn.Tensor, bias: nn.Tensor, function: str, matrix: Matrix) -> Activation:
        """function(x + bias) in the form in which `linear` with `matrix` wants it."""
        ...

    def pool(self, x: nn.Tensor, step: EncoderStep, how: str, normalize: bool) -> nn.Tensor:
        """One row for each sequence: float32 [b, width]."""
        ...
