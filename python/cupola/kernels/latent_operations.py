"""What a device must do beside `Operations` for latent attention (DeepSeek-AI, "DeepSeek-V2", 2024).

Keys and values of all heads are products of one small vector a token, its *latent* c, and keys have a part k that all
heads share and that rotates. Pages hold c and k alone. With W_UK and W_UV the products that would expand c, and a query
(q, r) of a head, its score with a token is

    q . (W_UK c) + r . k  =  (W_UK^T q) . c + r . k

and what it sees is W_UV times the weighted sum of c: so nothing is ever expanded.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tvm.relax.frontend import nn

from cupola.kernels.operations import Matrix, NormWeights, Operations, Pages, Step


@runtime_checkable
class LatentOperations(Operations, Protocol):
    """The operations of a device that knows latent attention."""

    def append_latent(self, x: nn.Tensor, norm: NormWeights, table: nn.Tensor, step: Step, pages: Pages) -> Pages:
        """Writes c behind its norm, and k rotated, to their slots.

        Args:
            x: float32 [n, at least latent + rotary], c and k of each row.
            norm: of c; without a bias.
            table: of `rotary_table`.
        """
        ...

    def split_queries(self, q: nn.Tensor, table: nn.Tensor, scale: float) -> tuple[nn.Tensor, nn.Tensor]:
        """(q [n, heads * plain], r [n, heads * rotary], rotated) of float32 [n, heads * (plain + rotary)], scaled."""
        ...

    def linear_by_head(self, x: nn.Tensor, matrix: Matrix) -> nn.Tensor:
        """Each head's part of x times the head's own matrix: float32 [n, rows of W].

        Args:
            x: float32 [n, heads * inputs of W].
            matrix: W, the heads' matrices one below the other; each has a multiple of 16 rows.
        """
        ...

    def attend_latent(self, q: nn.Tensor, r: nn.Tensor, step: Step, pages: Pages) -> nn.Tensor:
        """The weighted sums of c: float32 [n, heads * latent].

        Args:
            q: float32 [n, heads * latent], W_UK^T q of each head.
            r: float32 [n, heads * rotary].
        """
        ...
