"""What a matrix product is, and what a way of computing it looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cupola.kernels.cpu.emit import LANES, Expr, Span, let
from cupola.kernels.cpu.isa import Isa
from cupola.quantize.formats import Format
from cupola.quantize.layouts import OUT_BLOCK

HALVES = OUT_BLOCK // LANES  # vectors of outputs in a column block

Finish = Callable[[Expr, int, Expr], None]  # (row, part, sums): what becomes of the part-th vector of a row's outputs


@dataclass(frozen=True)
class LinearSpec:
    """One matrix product of a model.

    Args:
        format: how the weights are packed.
        inputs: K; a multiple of 32 for q8 and q4.
        outputs: N, before padding to whole column blocks.
        gated: W is [gate; up] of N/2 rows each, and the result is function(gate) * up, [n, N/2] (Shazeer, 2020).

    What becomes of the sums, in this order (`operations.Epilogue`):
        bias: add a vector b[N].
        function: one of `functions.FUNCTIONS`; of a gated product SiLU where none is named.
        scale: a factor.
        residual: add a tensor r[n, N].
        cap: y becomes cap * tanh(y / cap); 0: it stays.
    """

    format: Format
    inputs: int
    outputs: int
    residual: bool = False
    gated: bool = False
    bias: bool = False
    function: str | None = None
    scale: float = 1.0
    cap: float = 0.0

    @property
    def blocks(self) -> int:
        """Column blocks of W."""
        return -(-self.outputs // OUT_BLOCK)

    @property
    def width(self) -> int:
        """Row length of y: whole column blocks."""
        return self.blocks * OUT_BLOCK // (2 if self.gated else 1)

    @property
    def name(self) -> str:
        parts = {"gated": self.gated, "bias": self.bias, "residual": self.residual}
        return "_".join(["linear", self.format.value, *(part for part, there in parts.items() if there)])


@dataclass(frozen=True)
class Rows:
    """The rows of the input that a product is over.

    Args:
        count: how many there are.
        place: which row of the input the i-th of them is.
    """

    count: Expr
    place: Callable[[Expr], Expr] = lambda i: i

    def places(self, first: Expr, count: int) -> list[Expr]:
        """Of some neighbours among them."""
        return [let(self.place(let(first + r))) for r in range(count)]


BlockProduct = Callable[[Expr, Finish], None]  # (column block, what becomes of its sums)
Product = Callable[[LinearSpec, Isa, Rows, dict[str, Span]], BlockProduct]  # over rows, of a kernel's arguments
