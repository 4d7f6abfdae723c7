"""The layout of one KV page, the only definition of it.

A page holds `page_size` tokens of one layer, all key-value heads side by side; for each head first the keys,
[D][tokens], then the values, [tokens][D]. Keys are transposed so that sixteen scores are sums over D of vectors,
without a horizontal sum; values are not, so that the weighted sum runs over vectors as well.

Pages of int8 hold, after the values of a head, a float32 scale for the key and one for the value of every token,
[2][tokens]: a component is its code times that scale. Codes are symmetric, scale = max|x| / 127.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Expr,
    Index,
    Span,
    cast,
    f32,
    let,
    max_lanes,
    registers,
    select,
    serial,
    shuffle,
    splat,
)

CACHE_LINE = 64  # bytes
SCALE_BYTES = 4
ELEMENT_BYTES = {"float32": 4, "float16": 2, "int8": 1}


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
    def scaled(self) -> bool:
        """Whether components are codes that scales belong to."""
        return self.dtype == "int8"

    @property
    def head_elements(self) -> int:
        scales = 2 * self.page_size * SCALE_BYTES if self.scaled else 0
        return 2 * self.page_size * self.heads.dim + scales

    @property
    def elements(self) -> int:
        return self.heads.keys * self.head_elements

    @property
    def line(self) -> int:
        """Elements in a cache line."""
        return CACHE_LINE // ELEMENT_BYTES[self.dtype]

    def keys(self, page: Expr, head: Index) -> Expr:
        """Where the keys of a head begin."""
        return let(page * self.elements + head * self.head_elements)

    def values(self, page: Expr, head: Index) -> Expr:
        """Where the values of a head begin."""
        return let(self.keys(page, head) + self.page_size * self.heads.dim)

    def load(self, pages: Span, offset: Expr) -> Expr:
        """Eight stored elements as float32; where pages are scaled, without their scales."""
        stored = pages.load(offset)
        return cast(cast(stored, f"int32x{LANES}") if self.scaled else stored, f"float32x{LANES}")

    def key_scales(self, pages: Span, page: Expr, head: Index, token: Index) -> Expr:
        """The scales of the keys of eight neighbouring tokens."""
        return _scales(pages).load(let(self._first_scale(page, head) + token))

    def value_scales(self, pages: Span, page: Expr, head: Index, token: Index) -> Expr:
        """The scales of the values of eight neighbouring tokens."""
        return _scales(pages).load(let(self._first_scale(page, head) + self.page_size + token))

    def write_key(self, pages: Span, page: Expr, head: Expr, token: Expr, component: Callable[[Expr], Expr]) -> None:
        """Writes one token's key, a column of the page; `component(at)` gives eight neighbours from `at` on."""
        inverse = self._write_scale(pages, self._first_scale(page, head) + token, component)
        base = let(self.keys(page, head) + token)
        with serial(self.heads.dim // LANES) as j:
            stored = self._stored(component(let(j * LANES)), inverse)
            for lane in range(LANES):
                pages.put(base + (j * LANES + lane) * self.page_size, shuffle(stored, [lane]))

    def write_value(self, pages: Span, page: Expr, head: Expr, token: Expr, component: Callable[[Expr], Expr]) -> None:
        """Writes one token's value, a row of the page; `component(at)` gives eight neighbours from `at` on."""
        inverse = self._write_scale(pages, self._first_scale(page, head) + self.page_size + token, component)
        base = let(self.values(page, head) + token * self.heads.dim)
        with serial(self.heads.dim // LANES) as j:
            pages.store(base + j * LANES, self._stored(component(let(j * LANES)), inverse))

    def _first_scale(self, page: Expr, head: Index) -> Expr:
        """Where the scales of a head begin, counted in float32."""
        codes = self.keys(page, head) + 2 * self.page_size * self.heads.dim
        return let(tirx.floordiv(codes, SCALE_BYTES))

    def _write_scale(self, pages: Span, at: Expr, component: Callable[[Expr], Expr]) -> Expr | None:
        """Finds and writes the scale of one token's components; returns its inverse in all lanes."""
        if not self.scaled:
            return None
        largest = registers(1, fill=splat(f32(0.0)))
        with serial(self.heads.dim // LANES) as j:
            largest.put(0, let(tirx.max(largest.get(0), tirx.abs(component(let(j * LANES))))))
        limit = max_lanes(let(largest.get(0)))
        _scales(pages).put(at, let(limit * f32(1.0 / 127.0)))
        return splat(select(limit > f32(0.0), let(f32(127.0) / limit), f32(0.0)))

    def _stored(self, value: Expr, inverse: Expr | None) -> Expr:
        """Eight float32 components as they are stored."""
        if inverse is None:
            return cast(value, f"{self.dtype}x{LANES}")
        codes = cast(let(tirx.nearbyint(let(value * inverse))), f"int32x{LANES}")
        return cast(codes, f"{self.dtype}x{LANES}")


def _scales(pages: Span) -> Span:
    return pages.viewed("float32")
