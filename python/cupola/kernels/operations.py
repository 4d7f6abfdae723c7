"""What a model may ask of a device: the operations of a decoder, and the tensors that pass between them.

Models are written against `Operations`; each kind of device implements it (`cpu.operations` for processors).
Operations are as large as they can be fused on every device: a linear layer takes its residual, a norm ends in the form
in which the following product wants its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from tvm.relax.frontend import nn

from cupola.kernels.routing import Routing
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
        window_slots: int32 [n], `slots` for the layers with a window, which have their own pages; None: there are none.
        window_page_ids: int32 [p], and `page_ids`. Any page stands for those before the window.
    """

    ids: nn.Tensor
    positions: nn.Tensor
    slots: nn.Tensor
    q_indptr: nn.Tensor
    page_indptr: nn.Tensor
    page_ids: nn.Tensor
    kv_len: nn.Tensor
    out_rows: nn.Tensor
    window_slots: nn.Tensor | None = None
    window_page_ids: nn.Tensor | None = None

    def for_window(self) -> Step:
        """The step as layers with a window see it."""
        if self.window_slots is None or self.window_page_ids is None:
            return self
        return replace(self, slots=self.window_slots, page_ids=self.window_page_ids)


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
        function: "silu", "gelu", "gelu_tanh" or "relu"; None: none. Of a gated product also "swiglu_clamped", which is
            a function of both halves (gpt-oss, 2025): with g = min(x G^T, SWIGLU_LIMIT) and u = x U^T within
            -SWIGLU_LIMIT and SWIGLU_LIMIT, the result is g * sigmoid(SWIGLU_ALPHA * g) * (u + 1).
        gated: W is [G; U], and the result is function(x G^T) * (x U^T), half as wide (Shazeer, 2020).
        scale: a factor.
        residual: float32 [n, rows of W], added.
        cap: y becomes cap * tanh(y / cap); 0: it stays.
        wide: the result is float32, also where a device keeps what goes between products in fewer bits.
    """

    bias: nn.Tensor | None = None
    function: str | None = None
    gated: bool = False
    scale: float = 1.0
    residual: nn.Tensor | None = None
    cap: float = 0.0
    wide: bool = False


PLAIN = Epilogue()


@dataclass(frozen=True)
class Routes:
    """Where the rows of a step go: what `Operations.route` gives and the products of experts take.

    A *pair* is a row and one of its experts; row i and the j-th of its experts are pair i * used + j.

    Args:
        weights: float32 [n, used], or [n, used + 1] with the weight of the shared network last.
        order: tensors of the device's own, by which its products find the pairs of an expert (on CPUs: pairs sorted
            by expert, where each expert's begin, and which experts are in use).
    """

    routing: Routing
    weights: nn.Tensor
    order: tuple[nn.Tensor, ...]


class ExpertOperations(Protocol):
    """Mixtures of experts on one kind of device: a part of `Operations`."""

    def route(self, scores: nn.Tensor, routing: Routing, selection_bias: nn.Tensor | None = None) -> Routes:
        """Every row's experts and their weights.

        Args:
            scores: float32 [n, at least routing.scores], as `linear` with the router's matrix gives them.
            selection_bias: float32 [count], added for the choice alone.
        """
        ...

    def linear_experts(
        self, x: Activation, matrix: Matrix, routes: Routes, epilogue: Epilogue = PLAIN, *, pairs: bool
    ) -> nn.Tensor:
        """For every pair, x W_e^T of its expert and what follows it: float32 [n * used, rows of W_e] (half if gated).

        Only the experts in use are read. A pair's result does not depend, to the bit, on the others.

        Args:
            x: in the form that `activation` gives for the matrix.
            matrix: [count * rows of W_e, inputs], the experts' matrices one below the other; rows of W_e are a multiple
                of 16, twice that if gated (each W_e is [G; U] then).
            epilogue: bias (float32 [count * rows of W_e]), function and gated; the others stay at their defaults.
            pairs: x has a row for each pair, as an earlier call left them; else one for each row of the step.
        """
        ...

    def combine_experts(
        self,
        y: nn.Tensor,
        routes: Routes,
        *,
        scale: float = 1.0,
        shared: nn.Tensor | None = None,
        residual: nn.Tensor | None = None,
    ) -> nn.Tensor:
        """residual + scale * (sum over j of weights[i, j] * y[i * used + j] + weights[i, used] * shared[i]).

        Args:
            y: float32 [n * used, width], of the pairs.
            shared: float32 [n, width], where the routing has a shared gate; a shared network without one is part of
                the residual.
            residual: float32 [n, width]; None: 0.

        Returns:
            float32 [n, width]; the sum is taken in the order of j.
        """
        ...


class Operations(ExpertOperations, Protocol):
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

    def norm_heads(
        self, qkv: nn.Tensor, q_norm: nn.Tensor, k_norm: nn.Tensor, eps: float, *, centered: bool, by_head: bool
    ) -> nn.Tensor:
        """qkv with q and k normed: each head by itself, or all heads together; weights are float32 [heads * D]."""
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

    def project_append(
        self,
        x: Activation,
        matrix: Matrix,
        bias: nn.Tensor | None,
        table: nn.Tensor | None,
        step: Step,
        pages: Pages,
        *,
        query_scale: float | None = None,
    ) -> tuple[nn.Tensor, Pages]:
        """`rotate_append` of the product of x with the matrix of queries, keys and values."""
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
