"""The layout of one KV page, the only definition of it.

A page holds `page_size` tokens of one layer, all key-value heads side by side; for each head first the keys,
[D][tokens], then the values, [tokens][D]. Keys are transposed so that sixteen scores are sums over D of vectors,
without a horizontal sum; values are not, so that the weighted sum runs over vectors as well.

Pages of int16 and int8 hold, after the values of a head, a float32 scale for the key and one for the value of every
token, [2][tokens]: a component is its code times that scale. Their products run over pairs of neighbours, which lie
together: keys are [D/2][tokens][2], values [tokens/2][D][2].

    int16 keys      code = k * NORM / |k|: the Euclidean norm, which bounds every product with a query
    int16 values    code = v * 8191 / max|v|: 14 bits leave 18 to the weights of a block
    int8            code = x * 127 / max|x|
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Expr,
    Index,
    Span,
    cast,
    f32,
    fma,
    let,
    max_lanes,
    registers,
    select,
    serial,
    shuffle,
    splat,
    sum_lanes,
)
from cupola.kernels.heads import HeadShape as HeadShape

CACHE_LINE = 64  # bytes
SCALE_BYTES = 4
ELEMENT_BYTES = {"float32": 4, "float16": 2, "int16": 2, "int8": 1}
LARGEST_CODE = {"int16": 8191, "int8": 127}  # of values, and of int8 keys
NORM = 32000.0  # of codes of queries and int16 keys: products of two such vectors are less than 2^30


Component: TypeAlias = Callable[[Expr], Expr]  # offset -> the eight components of a vector from there on


@dataclass(frozen=True)
class PageLayout:
    """Offsets, in elements, within the pages tensor [num_pages, elements] of one layer."""

    heads: HeadShape
    page_size: int
    dtype: str

    @property
    def scaled(self) -> bool:
        """Whether components are codes that scales belong to."""
        return self.dtype in LARGEST_CODE

    @property
    def _scale_elements(self) -> int:
        """Elements that take the place of one scale."""
        return SCALE_BYTES // ELEMENT_BYTES[self.dtype]

    @property
    def depth(self) -> int:
        """Neighbours that a product adds up at once, and that lie together: components of keys, tokens of values."""
        return 2 if self.scaled else 1

    @property
    def most_weight(self) -> int:
        """The sum of integer weights that no weighted sum of values overflows 32 bits with, less what rounding adds."""
        return (2**31 - 1) // LARGEST_CODE[self.dtype] - 1024

    @property
    def codes(self) -> int:
        """Elements of the keys and values of one head, behind which scales lie."""
        return 2 * self.page_size * self.heads.dim

    @property
    def head_elements(self) -> int:
        return self.codes + (2 * self.page_size * self._scale_elements if self.scaled else 0)

    @property
    def elements(self) -> int:
        return self.heads.keys * self.head_elements

    @property
    def row(self) -> int:
        """Elements of one token's value."""
        return self.heads.dim

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
        """One step of eight stored elements: float32x8; where pages are scaled int16x16, without their scales."""
        lanes = LANES * self.depth
        return cast(pages.load(offset, lanes), f"{'int16' if self.scaled else 'float32'}x{lanes}")

    def key_scales(self, pages: Span, page: Expr, head: Index, token: Index) -> Expr:
        """The scales of the keys of eight neighbouring tokens."""
        return _scales(pages).load(let(self._first_scale(page, head) + token))

    def value_scales(self, pages: Span, page: Expr, head: Index, token: Index) -> Expr:
        """The scales of the values of eight neighbouring tokens."""
        return _scales(pages).load(let(self._first_scale(page, head) + self.page_size + token))

    def write_key(self, pages: Span, page: Expr, head: Expr, token: Expr, component: Component) -> None:
        """Writes one token's key, a column of the page; `component(at)` gives eight neighbours from `at` on."""
        limit = self._largest if self.dtype == "int8" else self._norm
        inverse = self._write_scale(pages, self._first_scale(page, head) + token, limit, component)
        base = let(self.keys(page, head) + token * self.depth)
        with serial(self.heads.dim // LANES) as j:
            stored = self._stored(component(let(j * LANES)), inverse)
            for lane in range(LANES):
                row = j * LANES + lane // self.depth * self.depth
                pages.put(base + row * self.page_size + lane % self.depth, shuffle(stored, [lane]))

    def write_value(self, pages: Span, page: Expr, head: Expr, token: Expr, component: Component) -> None:
        """Writes one token's value, a row of the page; `component(at)` gives eight neighbours from `at` on."""
        first = self._first_scale(page, head) + self.page_size
        inverse = self._write_scale(pages, first + token, self._largest, component)
        within = tirx.floormod(token, self.depth)
        base = let(self.values(page, head) + (token - within) * self.heads.dim + within)
        with serial(self.heads.dim // LANES) as j:
            stored = self._stored(component(let(j * LANES)), inverse)
            if self.depth == 1:
                pages.store(base + j * LANES, stored)
            for lane in range(LANES) if self.depth > 1 else ():
                pages.put(base + (j * LANES + lane) * self.depth, shuffle(stored, [lane]))

    def _first_scale(self, page: Expr, head: Index) -> Expr:
        """Where the scales of a head begin, counted in float32."""
        return let(tirx.floordiv(self.keys(page, head) + self.codes, self._scale_elements))

    def _write_scale(
        self, pages: Span, at: Expr, limit: Callable[[Component], tuple[Expr, float]], component: Component
    ) -> Expr | None:
        """Finds and writes the scale of one token's components; returns its inverse in all lanes."""
        if not self.scaled:
            return None
        size, code = limit(component)
        _scales(pages).put(at, let(size * f32(1.0 / code)))
        return splat(select(size > f32(0.0), let(f32(code) / size), f32(0.0)))

    def _largest(self, component: Component) -> tuple[Expr, float]:
        """The largest component, and its code."""
        largest = registers(1, fill=splat(f32(0.0)))
        with serial(self.heads.dim // LANES) as j:
            largest.put(0, let(tirx.max(largest.get(0), tirx.abs(component(let(j * LANES))))))
        return max_lanes(let(largest.get(0))), LARGEST_CODE[self.dtype]

    def _norm(self, component: Component) -> tuple[Expr, float]:
        """The norm, and that of the codes."""
        return euclidean_norm(self.heads.dim, component), NORM

    def _stored(self, value: Expr, inverse: Expr | None) -> Expr:
        """Eight float32 components as they are stored."""
        if inverse is None:
            return cast(value, f"{self.dtype}x{LANES}")
        codes = cast(let(tirx.nearbyint(let(value * inverse))), f"int32x{LANES}")
        return cast(codes, f"{self.dtype}x{LANES}")


def euclidean_norm(size: int, component: Component) -> Expr:
    """|x| of a vector of `size` components."""
    squares = registers(1, fill=splat(f32(0.0)))
    with serial(size // LANES) as j:
        x = component(let(j * LANES))
        squares.put(0, fma(x, x, squares.get(0)))
    return let(tirx.sqrt(sum_lanes(let(squares.get(0)))))


def _scales(pages: Span) -> Span:
    return pages.viewed("float32")
