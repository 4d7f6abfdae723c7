"""The layout of one KV page on a GPU, the only definition of it.

A page holds `page_size` tokens of one layer, all key-value heads side by side; for each head first the keys,
[D][tokens], then the values, [tokens][D]. Keys are transposed so that threads with a token each read neighbours, and
need nobody's help to sum over D; threads with a component each read neighbours of the values.
"""

from __future__ import annotations

from dataclasses import dataclass

from cupola.kernels.emit import Expr, let
from cupola.kernels.heads import HeadShape


@dataclass(frozen=True)
class GpuPages:
    """Offsets, in elements, within the pages tensor [num_pages, elements] of one layer.

    Args:
        dtype: how its floats lie in memory (`trait.STORED`).
    """

    heads: HeadShape
    page_size: int
    dtype: str

    @property
    def half(self) -> int:
        """Elements of the keys, or of the values, of one head."""
        return self.page_size * self.heads.dim

    @property
    def elements(self) -> int:
        return self.heads.keys * 2 * self.half

    def head(self, page: Expr, head: Expr) -> Expr:
        """Where a head of a page begins."""
        return let(page * self.elements + head * (2 * self.half))

    def key(self, head: Expr, component: Expr | int, token: Expr) -> Expr:
        """A component of a key; `head` as above."""
        return let(head + component * self.page_size + token)

    def value(self, head: Expr, component: Expr, token: Expr | int) -> Expr:
        """A component of a value."""
        return let(head + self.half + token * self.heads.dim + component)
