"""The layout of one KV page on a GPU, the only definition of it: of keys and values, and of latents.

A page holds `page_size` tokens of one layer, all key-value heads side by side; for each head first the keys,
[D][tokens], then the values, [tokens][D]. Keys are transposed so that threads with a token each read neighbours, and
need nobody's help to sum over D; threads with a component each read neighbours of the values.

A page of latents holds them once, [components][tokens]: whoever reads values walks along the tokens of his component,
which lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from cupola.kernels.emit import Expr, let
from cupola.kernels.heads import HeadShape
from cupola.kernels.latent_shape import LatentShape


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
    def key_dim(self) -> int:
        """Components of a key; a value has heads.dim."""
        return self.heads.dim

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


@dataclass(frozen=True)
class MatrixPages(GpuPages):
    """The same the other way round, for matrix units: keys [tokens][D], values [D][tokens].

    Inputs that a product sums over are neighbours: components of a key, tokens of a component of the values. Pages of
    16-bit floats, whose tokens and components come in multiples of eight: 16 bytes.
    """

    def key(self, head: Expr, component: Expr | int, token: Expr) -> Expr:
        return let(head + token * self.heads.dim + component)

    def value(self, head: Expr, component: Expr, token: Expr | int) -> Expr:
        return let(head + self.half + component * self.page_size + token)


def pages_for_units(pages: GpuPages) -> GpuPages:
    """Pages as a device with matrix units keeps them; as they are where its tiles do not fit heads."""
    fits = pages.heads.dim % 16 == 0 and pages.heads.dim <= 256 and pages.page_size % 8 == 0
    if not fits or pages.dtype not in ("float16", "uint16"):
        return pages
    return MatrixPages(pages.heads, pages.page_size, pages.dtype)


@dataclass(frozen=True)
class LatentPages(GpuPages):
    """Pages of latents: a token's row is its key, and the first components of it are its value.

    Args:
        heads: query heads, one key-value head, and the components of a latent.
        rotary: components of the shared key, behind them.
    """

    rotary: int

    @classmethod
    def of(cls, shape: LatentShape, page_size: int, dtype: str) -> LatentPages:
        return cls(HeadShape(shape.heads, 1, shape.latent), page_size, dtype, shape.rotary)

    @property
    def key_dim(self) -> int:
        return self.heads.dim + self.rotary

    @property
    def elements(self) -> int:
        return self.page_size * self.key_dim

    def head(self, page: Expr, head: Expr) -> Expr:  # noqa: ARG002
        return let(page * self.elements)

    def value(self, head: Expr, component: Expr, token: Expr | int) -> Expr:
        return let(head + component * self.page_size + token)
