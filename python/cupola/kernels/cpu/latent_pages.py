"""The layout of a KV page of latent attention, the only definition of it.

A page holds `page_size` tokens of one layer, one row each: the latent c, then the key k that rotates. All heads read
the same rows, as keys and as values. Pages of int16 and int8 hold, behind the rows, a float32 scale for the latent and
one for the key of every token, [2][tokens]: a component is its code times that scale, and a code is
x * LARGEST / max|x|.

Components are multiplied as float32, whatever the type that pages store: a page is read once for many heads, so that
it is arithmetic, and not widening, that takes the time.
"""

from __future__ import annotations

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
    splat,
)
from cupola.kernels.cpu.pages import Component, HeadShape, PageLayout
from cupola.kernels.latent_shape import LatentShape

LARGEST = {"int16": 32767, "int8": 127}
TOGETHER = 8  # query heads that walk through the context together; the others read the same pages again


@dataclass(frozen=True)
class LatentLayout(PageLayout):
    """Offsets, in elements, within the pages tensor of one layer; to attention, keys and values of some heads.

    Args:
        rotary: components of the key that rotates.
    """

    rotary: int

    @staticmethod
    def of(shape: LatentShape, page_size: int, dtype: str) -> LatentLayout:
        """Heads are taken in groups, each of which is to attention what the heads of one key are."""
        together = next(size for size in range(TOGETHER, 0, -1) if shape.heads % size == 0)
        heads = HeadShape(shape.heads, shape.heads // together, shape.latent)
        return LatentLayout(heads, page_size, dtype, shape.rotary)

    @property
    def depth(self) -> int:
        return 1

    @property
    def row(self) -> int:
        return self.heads.dim + self.rotary

    @property
    def codes(self) -> int:
        return self.page_size * self.row

    @property
    def elements(self) -> int:
        return self.head_elements

    def keys(self, page: Expr, head: Index) -> Expr:  # noqa: ARG002
        return let(page * self.elements)

    def values(self, page: Expr, head: Index) -> Expr:
        return self.keys(page, head)

    def load(self, pages: Span, offset: Expr) -> Expr:
        """Eight stored elements, without their scales: float32x8."""
        return cast(pages.load(offset), f"float32x{LANES}")

    def latent_scale(self, pages: Span, page: Expr, token: Expr) -> Expr:
        """The scale of a token's latent."""
        return pages.viewed("float32").at(self._first_scale(page, 0) + token)

    def rotary_scale(self, pages: Span, page: Expr, token: Expr) -> Expr:
        """The scale of a token's key."""
        return pages.viewed("float32").at(self._first_scale(page, 0) + self.page_size + token)

    def write(self, pages: Span, page: Expr, token: Expr, component: Component) -> None:
        """Writes one token's row; `component(at)` gives eight neighbours from `at` on."""
        base = let(self.keys(page, 0) + token * self.row)
        for part, (first, count) in enumerate(((0, self.heads.dim), (self.heads.dim, self.rotary))):
            inverse = None
            if self.scaled:
                at = let(self._first_scale(page, 0) + part * self.page_size + token)
                inverse = self._write_part_scale(pages, at, first, count, component)
            with serial(count // LANES) as j:
                at = let(first + j * LANES)
                pages.store(base + at, self._stored(component(at), inverse))

    def _write_part_scale(self, pages: Span, at: Expr, first: int, count: int, component: Component) -> Expr:
        """Finds and writes the scale of some components; returns its inverse in all lanes."""
        largest = registers(1, fill=splat(f32(0.0)))
        with serial(count // LANES) as j:
            value = component(let(first + j * LANES))
            largest.put(0, let(tirx.max(largest.get(0), tirx.abs(value))))
        size, code = max_lanes(let(largest.get(0))), LARGEST[self.dtype]
        pages.viewed("float32").put(at, let(size * f32(1.0 / code)))
        return splat(select(size > f32(0.0), let(f32(float(code)) / size), f32(0.0)))
