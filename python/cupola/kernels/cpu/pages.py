"""The layout of one KV page, the only definition of it.

A page holds `page_size` tokens of one layer, all key-value heads side by side; for each head first the keys,
[D][tokens], then the values, [tokens][D]. Keys are transposed so that sixteen scores are sums over D of vectors,
without a horizontal sum; values are not, so that the weighted sum runs over vectors as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from cupola.kernels.cpu.emit import LANES, Expr, Index, Span, cast, let, shuffle


@dataclass(frozen=True)
class HeadShape:
    """Attention heads: `queries` heads share `keys` key-value heads, evenly."""

    queries: int
    keys: int
    dim: int

    @property
    def group(self) -> int:
        """Query heads to a key-value head."""
        return self.queries // self.keys


@dataclass(frozen=True)
class PageLayout:
    """Offsets, in elements, within the pages tensor [num_pages, elements] of one layer."""

    heads: HeadShape
    page_size: int
    dtype: str

    @property
    def elements(self) -> int:
        return self.heads.keys * 2 * self.page_size * self.heads.dim

    def keys(self, page: Expr, head: Index) -> Expr:
        """Where the keys of a head begin."""
        return let(page * self.elements + head * (2 * self.page_size * self.heads.dim))

    def values(self, page: Expr, head: Index) -> Expr:
        """Where the values of a head begin."""
        return let(self.keys(page, head) + self.page_size * self.heads.dim)

    def write_key(self, pages: Span, page: Expr, head: Expr, token: Expr, at: Index, value: Expr) -> None:
        """Writes eight neighbouring components of one token's key: a column of the page."""
        base = let(self.keys(page, head) + token)
        stored = cast(value, f"{self.dtype}x{LANES}")
        for lane in range(LANES):
            pages.put(base + (at + lane) * self.page_size, shuffle(stored, [lane]))

    def write_value(self, pages: Span, page: Expr, head: Expr, token: Expr, at: Index, value: Expr) -> None:
        """Writes eight neighbouring components of one token's value."""
        base = let(self.values(page, head) + token * self.heads.dim)
        pages.store(base + at, cast(value, f"{self.dtype}x{LANES}"))

    def load(self, pages: Span, offset: Expr) -> Expr:
        """Eight stored elements as float32."""
        return cast(pages.load(offset), f"float32x{LANES}")
