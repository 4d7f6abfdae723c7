"""What an encoder may ask of a device, as `operations.py` says it for decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tvm.relax.frontend import nn

from cupola.kernels.operations import PLAIN, Activation, Epilogue, Matrix, NormWeights
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
    """The tables of an encoder's input, those that it has, and how position 0 is written: in row `first_position`."""

    words: nn.Tensor
    positions: nn.Tensor | None
    types: nn.Tensor | None
    first_position: int


@dataclass(frozen=True)
class Positions:
    """What attention knows of where tokens stand.

    Args:
        table: of `rotary_table`; None: nothing rotates.
        window: tokens that a row sees to each side of itself; 0: all of them.
        relative: float32 [buckets, heads], added to the scores of tokens at the distances of a bucket; None: nothing.
        bucket_of: the bucket of a distance: where the key stands, less where the query stands.
    """

    table: nn.Tensor | None = None
    window: int = 0
    relative: nn.Tensor | None = None
    bucket_of: Callable[[np.ndarray], np.ndarray] | None = None


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

    def embed(self, step: EncoderStep, tables: Tables, norm: NormWeights) -> nn.Tensor:
        """The norm of the sum of the tables' rows: float32 [n, width]."""
        ...

    def rotary_table(self, positions: nn.Tensor, frequencies: Sequence[float], magnitude: float) -> nn.Tensor:
        """Cosines and sines of the step's positions, for `attention`."""
        ...

    def activation(self, x: nn.Tensor, matrix: Matrix, norm: NormWeights | None = None) -> Activation:
        """x, behind a norm if one is given, in the form in which `linear` with `matrix` wants it."""
        ...

    def linear(self, x: Activation, matrix: Matrix, epilogue: Epilogue = PLAIN) -> nn.Tensor:
        """x W^T and what follows it: float32 [n, rows of W], or half as many if gated."""
        ...

    def attention(self, qkv: nn.Tensor, bias: nn.Tensor | None, step: EncoderStep, positions: Positions) -> nn.Tensor:
        """Each row over what it sees of its sequence: float32 [n, heads * D], from projections without their bias."""
        ...

    def norm(
        self, x: nn.Tensor, bias: nn.Tensor | None, norm: NormWeights, matrix: Matrix | None
    ) -> tuple[nn.Tensor, Activation]:
        """norm(x + bias), and the same in the form in which `linear` with `matrix` wants it."""
        ...

    def activated(self, x: nn.Tensor, bias: nn.Tensor, function: str, matrix: Matrix) -> Activation:
        """function(x + bias) in the form in which `linear` with `matrix` wants it."""
        ...

    def pool(self, x: nn.Tensor, step: EncoderStep, how: str, normalize: bool) -> nn.Tensor:
        """One row for each sequence: float32 [b, width]."""
        ...

    def project(self, x: nn.Tensor, weight: nn.Tensor, bias: nn.Tensor) -> nn.Tensor:
        """x W^T + bias in float32, of few outputs: float32 [b, rows of W]."""
        ...
