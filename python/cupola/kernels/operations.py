"""What a model may ask of a device: the operations of a decoder, and the tensors that pass between them.

Models are written against `Operations`; each kind of device implements it (`cpu.operations` for processors).
Operations are as large as they can be fused on every device: a linear layer takes its residual, a norm ends in the form
in which the following product wants its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from tvm.relax.frontend import nn

from cupola.quantize.formats import Format

Pages: TypeAlias = nn.Tensor  # [num_pages, page elements]: the keys and values of one layer
Activation: TypeAlias = tuple[nn.Tensor, ...]  # the input of a product: one float tensor, or integers and their scales


class Matrix(nn.Parameter):
    """A packed weight matrix [rows, inputs]."""

    def __init__(self, shape: Sequence[int], dtype: str, fmt: Format, rows: int, inputs: int) -> None:
        super().__init__(shape, dtype)
        self.format, self.rows, self.inputs = fmt, rows, inputs


@dataclass(frozen=True)
class Step:
    """The integers that describe one step; n rows, b sequences, p pages, m wanted rows.

    Args:
        ids: int32 [n], tokens of all sequences, one after the other.
        positions: int32 [n].
        slots: int32 [n], page * page_size + offset where a token's key and value go.
        q_indptr: int32 [b + 1], rows of sequence s are q_indptr[s] to q_indptr[s + 1].
        page_indptr: int32 [b + 1], pages of sequence s are page_ids[page_indptr[s]] to page_ids[page_indptr[s + 1]].
        page_ids: int32 [p].
        kv_len: int32 [b], tokens of each sequence after this step.
        out_rows: int32 [m], rows of which logits are wanted.
    """

    ids: nn.Tensor
    positions: nn.Tensor
    slots: nn.Tensor
    q_indptr: nn.Tensor
    page_indptr: nn.Tensor
    page_ids: nn.Tensor
    kv_len: nn.Tensor
    out_rows: nn.Tensor


@dataclass(frozen=True)
class NormWeights:
    """A norm of rows: RMSNorm (Zhang and Sennrich, 2019), or LayerNorm where it is `centered` (Ba et al., 2016)."""

    weight: nn.Tensor
    bias: nn.Tensor | None
    eps: float
    centered: bool


@dataclass(frozen=True)
class Epilogue:
    """What becomes of a product's sums, in this order.

    Args:
        bias: float32 [rows of W], added.
        function: "silu", "gelu", "gelu_tanh" or "relu"; None: none.
        gated: W is [G; U], and the result is function(x G^T) * (x U^T), half as wide (Shazeer, 2020).
        scale: a factor.
        residual: float32 [n, rows of W], added.
        cap: y becomes cap * tanh(y / cap); 0: it stays.
    """

    bias: nn.Tensor | None = None
    function: str | None = None
    gated: bool = False
    scale: float = 1.0
    residual: nn.Tensor | None = None
    cap: float = 0.0


PLAIN = Epilogue()


class Operations(Protocol):
    """The operations of one kind of device."""

    @property
    def page_elements(self) -> int:
        """Elements of one page of one layer."""
        ...

    def vector(self, *shape: int) -> nn.Parameter:
        """Declares a plain float32 vector or table."""
        ...

    def matrix(self, fmt: Format, rows: int, inputs: int) -> Matrix:
        """Declares a packed matrix [rows, inputs]."""
        ...

    def embed(self, step: Step, table: Matrix, positions: nn.Tensor | None, scale: float) -> nn.Tensor:
        """scale * table[ids], plus the rows of the positions if they have a table: float32 [n, inputs]."""
        ...

    def rotary_table(self, positions: nn.Tensor, frequencies: Sequence[float], magnitude: float) -> nn.Tensor:
        """Cosines and sines of the step's positions, for `rotate_append`."""
        ...

    def activation(self, x: nn.Tensor, matrix: Matrix, norm: NormWeights | None = None) -> Activation:
        """x, behind a norm if one is given, in the form in which `linear` with `matrix` wants it."""
        ...

    def add_normed(self, x: nn.Tensor, y: nn.Tensor, norm: NormWeights) -> nn.Tensor:
        """x + norm(y)."""
        ...

    def linear(self, x: Activation, matrix: Matrix, epilogue: Epilogue = PLAIN) -> nn.Tensor:
        """x W^T and what follows it: float32 [n, rows of W], or half as many if gated."""
        ...

    def norm_heads(self, qkv: nn.Tensor, q_norm: nn.Tensor, k_norm: nn.Tensor, eps: float, centered: bool) -> nn.Tensor:
        """qkv with q and k normed: each head by itself if the weights are one head long, else all heads together."""
        ...

    def rotate_append(
        self, qkv: nn.Tensor, table: nn.Tensor | None, step: Step, pages: Pages, *, query_scale: float | None = None
    ) -> tuple[nn.Tensor, Pages]:
        """Rotates q and k, scales q, writes k and v to their slots; returns q [n, heads * D] and the pages.

        Args:
            table: of `rotary_table`; None: nothing rotates.
            query_scale: the factor on queries; None: 1 / sqrt(D).
        """
        ...

    def attention(
        self,
        q: nn.Tensor,
        step: Step,
        pages: Pages,
        *,
        window: int = 0,
        soft_cap: float = 0.0,
        sinks: nn.Tensor | None = None,
    ) -> nn.Tensor:
        """Causal attention of each row over its sequence's pages: float32 [n, heads * D].

        Args:
            window: tokens that a row sees, itself the last of them; 0: all before it.
            soft_cap: scores become soft_cap * tanh(score / soft_cap); 0: they stay.
            sinks: float32 [heads], a logit of each head that takes part in the softmax and has no value.
        """
        ...

    def take(self, x: nn.Tensor, rows: nn.Tensor) -> nn.Tensor:
        """x[rows]."""
        ...
