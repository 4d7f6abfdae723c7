"""Columns of 16-bit floats: weights that are what the matrix unit multiplies already.

A load is eight outputs at one input. Lanes g have both halves of two blocks, twice: lanes 0 to 3 at eight of 16
neighbouring inputs, lanes 4 to 7 at the others. Columns 0 to 3 of the unit are rows at the former, columns 4 to 7 the
same rows at the latter; what lanes multiply with columns that are not theirs is not used. Eight rows go in two sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial as bound

from tvm import tirx

from cupola.kernels.emit import Expr, Span, branch, i32, let
from cupola.kernels.gpu.columns import LINE, Columns, Lane, Row, fetch_inputs, pick
from cupola.kernels.gpu.emit import registers, u32, zero
from cupola.kernels.gpu.matrix_unit import A_WORDS, B_WORDS, SUMS, Instructions
from cupola.quantize.formats import GROUP
from cupola.quantize.layouts import OUT_BLOCK

QUAD = 4  # words of a load
WORDS = OUT_BLOCK // 2  # of a block, at one input
SPAN = 16  # neighbouring inputs whose pairs lie in one word each
TOGETHER = 4  # rows of a set


@dataclass(frozen=True)
class FloatColumns(Columns):
    """See above."""

    @property
    def groups_a_step(self) -> int:
        return 2

    @property
    def slices(self) -> int:
        return 2

    @property
    def sets(self) -> int:
        return -(-self.rows // TOGETHER)

    def share(self, tools: Instructions, x: Span, w: Span, lane: Lane, row: Row, blocks: Sequence[Expr]) -> FloatShare:
        return FloatShare(self, tools, x, w, lane, row, blocks)


class FloatShare:
    """`columns.Share` of such a product."""

    def __init__(
        self, way: FloatColumns, tools: Instructions, x: Span, w: Span, lane: Lane, row: Row, blocks: Sequence[Expr]
    ) -> None:
        self._way, self._tools, self._x, self._w, self._lane = way, tools, x, w, lane
        self._half, self._side, self._part = let(lane.g & 1), let((lane.g >> i32(1)) & 1), let(lane.g >> i32(2))
        pair = let((self._part * 4 + lane.t) * 2)  # this thread's inputs of every span: two
        self._weights = let((pick(self._side, blocks) * way.matrix.inputs + pair) * WORDS + self._half * QUAD)
        last = i32(min(way.rows, TOGETHER) - 1)
        self._lines = [
            let(row(let(tirx.min(lane.g & i32(TOGETHER - 1), last) + s * TOGETHER)) * way.matrix.inputs + pair)
            for s in range(way.sets)
        ]
        groups = range(way.groups_a_step)
        self._quads = [[registers(QUAD, "uint32") for _ in range(4)] for _ in groups]
        self._seen = [[[registers(1, "uint32") for _ in range(2)] for _ in range(way.sets)] for _ in groups]
        self._sums = registers(way.sets * QUAD * SUMS, fill=zero())

    def fetch(self, first: Expr) -> None:
        starts = [let(self._way.existing(let(first + j)) * GROUP) for j in range(self._way.groups_a_step)]
        for start, quads in zip(starts, self._quads, strict=True):
            for quad, at in zip(quads, (0, 1, SPAN, SPAN + 1), strict=True):
                self._tools.fetch(
                    quad, 0, self._w, let(self._weights + (start + at) * WORDS), QUAD, early=self._way.early
                )
        for start, seen in zip(starts, self._seen, strict=True):
            for line, spans in zip(self._lines, seen, strict=True):
                for s, word in enumerate(spans):
                    fetch_inputs(self._tools, word, self._x, let(line + start + s * SPAN), early=self._way.early)

    def multiply(self, first: Expr) -> None:
        for j in range(self._way.groups_a_step):
            self._multiply(let(first + j), j)

    def _multiply(self, group: Expr, j: int) -> None:
        """One group: four tiles of outputs, which lie in the same word of each load."""
        tools, quads, sets = self._tools, self._quads[j], self._way.sets
        b = registers(B_WORDS * sets, "uint32")
        for s, spans in enumerate(self._seen[j]):
            for part, word in enumerate(self._way.or_zero(group, [span.at(0) for span in spans])):
                b.put(B_WORDS * s + part, word)
        for m in range(QUAD):
            a = registers(A_WORDS, "uint32")
            for part in range(2):
                one, other = quads[2 * part].at(m), quads[2 * part + 1].at(m)
                a.put(2 * part, tools.permute(one, other, u32(0x5410)))
                a.put(2 * part + 1, tools.permute(one, other, u32(0x7632)))
            for s in range(sets):
                tools.multiply(a, 0, b, B_WORDS * s, self._sums, (s * QUAD + m) * SUMS)

    def store(self, partial: Span) -> None:
        rows, t = self._way.rows, self._lane.t

        def write(s: int, c: int, r: Expr) -> None:
            line = let(((self._lane.warp * 2 + self._part) * rows + r) * LINE)
            at = let(line + self._side * OUT_BLOCK + self._half * (2 * QUAD))
            for m in range(QUAD):
                for j in range(2):
                    partial.put(at + (2 * m + j), self._sums.at((s * QUAD + m) * SUMS + 2 * j + c))

        for s in range(self._way.sets):
            for c in range(2):
                r = let((t & 1) * 2 + (s * TOGETHER + c))
                own = let(tirx.And((t >> i32(1)).equal(self._part), r < rows))
                branch(own, bound(write, s, c, r))
