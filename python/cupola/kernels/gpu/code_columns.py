"""Columns of codes in groups with scales of their own.

A load is four outputs at four or eight inputs. Lanes g have the quarters of two blocks, lanes t the steps of a group.
Column c of the unit is row c % rows at one of the groups that are multiplied together, that of number c / rows: of
every group the other columns are zero, so that its sums stay apart until they are scaled, which every thread does for
two columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, bits, f32, i32, let, select
from cupola.kernels.gpu.codes import Codes
from cupola.kernels.gpu.columns import COLUMNS, LINE, Columns, Lane, Row, fetch_inputs, pick
from cupola.kernels.gpu.emit import madd, registers, split, u32, zero
from cupola.kernels.gpu.matrix_unit import A_WORDS, B_WORDS, SUMS, Instructions
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import OUT_BLOCK, SCALE_BYTES, WORD, block_bytes, codes_offset, scale_bytes

QUAD = 4  # words of a load: of one output each
ONES = {"float16": 0x3C003C00, "bfloat16": 0x3F803F80}


@dataclass(frozen=True)
class Scales:
    """Of four outputs and one group: words, with minima where there are some."""

    scale: Span
    minimum: Span | None

    @classmethod
    def of(cls, way: CodeColumns) -> Scales:
        return cls(_words(way.scale_words), _words(2) if way.minima else None)


@dataclass(frozen=True)
class CodeColumns(Columns):
    """See above."""

    codes: Codes

    @property
    def groups_a_step(self) -> int:
        """Of eight rows fewer: their inputs and scales need registers too."""
        return (8 if self.rows == 1 else 4) // self.codes.words

    @property
    def together(self) -> int:
        """Groups whose sums lie side by side."""
        return min(COLUMNS // self.rows, self.groups_a_step)

    @property
    def slices(self) -> int:
        return COLUMNS // self.rows // self.merged

    @property
    def left_over(self) -> bool:
        """Some columns are nobody's."""
        return self.together * self.rows < COLUMNS

    @property
    def merged(self) -> int:
        """Columns of a thread that are of one row: added up at once."""
        return 2 if self.rows == 1 else 1

    @property
    def size(self) -> int:
        """Words of a block and group."""
        return block_bytes(self.matrix.format) // WORD

    @property
    def scale_words(self) -> int:
        """That hold the scales of four outputs."""
        return scale_bytes(self.matrix.format) // (OUT_BLOCK // QUAD) // WORD

    @property
    def minima(self) -> bool:
        return self.matrix.format is Format.Q4

    @property
    def shifted(self) -> bool:
        """Sums of inputs are needed."""
        return self.minima or self.codes.offsets != (0.0, 0.0)

    def floats(self, words: Span) -> list[Expr]:
        """Four scales out of words."""
        if self.scale_words == 1:
            exponents = [let((words.at(0) >> u32(8 * i)) & u32(0xFF)) for i in range(QUAD)]
            return [bits(let(exponent << u32(23)), "float32") for exponent in exponents]
        return list(self.matrix.halves([words.at(0), words.at(1)]))

    def place(self, column: Expr) -> tuple[Expr, Expr]:
        """(group of those together, row) of a column."""
        return split(column, self.rows)

    def share(self, tools: Instructions, x: Span, w: Span, lane: Lane, row: Row, blocks: Sequence[Expr]) -> CodeShare:
        return CodeShare(self, tools, x, w, lane, row, blocks)


class CodeShare:
    """`columns.Share` of such a product."""

    def __init__(
        self, way: CodeColumns, tools: Instructions, x: Span, w: Span, lane: Lane, row: Row, blocks: Sequence[Expr]
    ) -> None:
        self._way, self._tools, self._x, self._w, self._lane = way, tools, x, w, lane
        side, quarter = split(lane.g, QUAD)
        self._output = let(side * OUT_BLOCK + quarter * QUAD)
        start = let(pick(side, blocks) * (way.groups * way.size))
        self._scales_at = let(start + quarter * way.scale_words)
        self._codes_at = let(start + codes_offset(way.matrix.format) // WORD + lane.t * OUT_BLOCK + quarter * QUAD)
        self._inside, mine = way.place(lane.g)
        self._line = let(row(mine) * way.matrix.inputs + lane.t * 4)
        self._parts = range(0, way.groups_a_step, way.together)
        self._codes = [[_words(QUAD) for _ in range(way.codes.words)] for _ in range(way.groups_a_step)]
        self._inputs = [[_words(2) for _ in range(2)] for _ in self._parts]
        self._scales = [[Scales.of(way) for _ in range(way.merged)] for _ in self._parts]
        self._sums = registers(QUAD * 2 // way.merged, fill=zero())

    def fetch(self, first: Expr) -> None:
        for j in range(self._way.groups_a_step):
            self._fetch_codes(let(first + j), j)
        for k in range(len(self._parts)):
            self._fetch_inputs(first, k)
        for k in range(len(self._parts)):
            self._fetch_scales(first, k)

    def _fetch_codes(self, group: Expr, j: int) -> None:
        place = let(self._codes_at + self._way.existing(group) * self._way.size)
        for s, quad in enumerate(self._codes[j]):
            self._tools.fetch(quad, 0, self._w, let(place + s * 4 * OUT_BLOCK), QUAD, early=self._way.early)

    def _fetch_inputs(self, first: Expr, k: int) -> None:
        at = let(self._line + self._way.existing(self._group(first, k, self._inside)) * GROUP)
        for half, words in enumerate(self._inputs[k]):
            fetch_inputs(self._tools, words, self._x, let(at + half * (GROUP // 2)), early=self._way.early)

    def _fetch_scales(self, first: Expr, k: int) -> None:
        """Those of either column of this thread, or of both."""
        for c, found in enumerate(self._scales[k]):
            inside, _ = self._way.place(let(self._lane.t * 2 + c))
            place = let(self._scales_at + self._way.existing(self._group(first, k, inside)) * self._way.size)
            self._tools.fetch(found.scale, 0, self._w, place, self._way.scale_words, early=self._way.early)
            if found.minimum is not None:
                self._tools.fetch(found.minimum, 0, self._w, let(place + SCALE_BYTES // WORD), 2, early=self._way.early)

    def _group(self, first: Expr, k: int, inside: Expr) -> Expr:
        """That of a column; columns may be left over, whose group is the last one of those together."""
        if self._way.left_over:
            inside = let(tirx.min(inside, i32(self._way.together - 1)))
        return let(first + inside + self._parts[k])

    def multiply(self, first: Expr) -> None:
        for k, part in enumerate(self._parts):
            seen = self._paired(first, k)
            products = registers(self._way.codes.parts * 2 * SUMS, fill=zero())
            for j in range(self._way.together):
                self._multiply(part + j, j, seen, products)
            self._scale(products, self._totals(seen) if self._way.shifted else None, self._scales[k])

    def _paired(self, first: Expr, k: int) -> list[Expr]:
        """Inputs in pairs as codes are: 0 and 2, 1 and 3. Zeros where there is no such group."""
        found = []
        for words in self._inputs[k]:
            both = words.at(0), words.at(1)
            found += [self._tools.permute(*both, u32(selector)) for selector in (0x5410, 0x7632)]
        if self._way.left_over:
            found = [select(let(self._inside < self._way.together), word, u32(0)) for word in found]
        return self._way.or_zero(self._group(first, k, self._inside), found)

    def _multiply(self, at: int, inside: int, seen: Sequence[Expr], products: Span) -> None:
        """Adds the products of one group's codes; `inside` is its place among those whose sums lie side by side."""
        tools, parts, quads = self._tools, self._way.codes.parts, self._codes[at]
        b, mine = _words(2 * B_WORDS), let(self._inside.equal(i32(inside)))
        for i, word in enumerate(seen):
            b.put(i, word if self._way.together == 1 else select(mine, word, u32(0)))
        for half in range(2):
            quad = quads[half % len(quads)]
            for i in range(2):
                a = _words(A_WORDS)
                for o in range(2):
                    pair = self._way.codes.unpack(tools, quad.at(2 * i + o), half)
                    a.put(o, pair[0])
                    a.put(2 + o, pair[1])
                tools.multiply(a, 0, b, B_WORDS * half, products, ((half % parts) * 2 + i) * SUMS)

    def _totals(self, seen: Sequence[Expr]) -> list[Span]:
        """Sums of the inputs of either half, of which the first two are those of this thread's columns."""
        ones, b, found = _words(A_WORDS), _words(2 * B_WORDS), []
        for i, word in enumerate(seen):
            ones.put(i, u32(ONES[self._way.unit.dtype]))
            b.put(i, word)
        for half in range(2):
            total = registers(SUMS, fill=zero())
            self._tools.multiply(ones, 0, b, B_WORDS * half, total, 0)
            found.append(total)
        return found

    def _scale(self, products: Span, totals: list[Span] | None, scales: Sequence[Scales]) -> None:
        """Adds the groups' sums, scaled."""
        gains, offsets = self._way.codes.gains, self._way.codes.offsets
        for c in range(2):
            found = scales[c % len(scales)]
            scale = self._way.floats(found.scale)
            minimum = None if found.minimum is None else self._way.floats(found.minimum)
            shift = total = None
            if totals is not None:
                low, high = totals[0].at(c), totals[1].at(c)
                shift = madd(low, f32(-offsets[0] / gains[0]), let(high * f32(-offsets[1] / gains[1])))
                total = let(low + high)
            for o in range(QUAD):
                at, place = (o // 2) * SUMS + 2 * (o % 2) + c, o if self._way.merged == 2 else o * 2 + c
                value = products.at(at) if gains[0] == 1 else let(products.at(at) * f32(1 / gains[0]))
                if self._way.codes.parts == 2:
                    value = madd(products.at(2 * SUMS + at), f32(1 / gains[1]), value)
                if shift is not None:
                    value = let(value + shift)
                self._sums.put(place, madd(value, scale[o], self._sums.at(place)))
                if minimum is not None and total is not None:
                    self._sums.put(place, madd(minimum[o], total, self._sums.at(place)))

    def store(self, partial: Span) -> None:
        for c in range(2 // self._way.merged):
            slice_, r = self._way.place(let(self._lane.t * 2 + c))
            if self._way.merged == 2:
                slice_, r = self._lane.t, i32(0)
            line = let(((self._lane.warp * self._way.slices + slice_) * self._way.rows + r) * LINE)
            for o in range(QUAD):
                partial.put(line + self._output + o, self._sums.at(o if self._way.merged == 2 else o * 2 + c))


def _words(count: int) -> Span:
    return registers(count, "uint32")
