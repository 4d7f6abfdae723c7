"""Products of many rows on matrix units: tiles of rows and weights as words of two 16-bit floats in shared memory.

Weights are unpacked on their way there, whatever their format. Lines of shared memory are 20 words apart for 16 words
of content, so that the eight rows of a fragment lie in different banks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cupola.kernels.emit import Expr, Span, i32, let
from cupola.kernels.gpu.emit import Block, read, registers, serial, shared, split, sync, zero
from cupola.kernels.gpu.linear_tile import Place
from cupola.kernels.gpu.matrix_unit import A_WORDS, B_WORDS, INPUTS, OUTPUTS, ROWS, SUMS, WARP, MatrixUnit
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import GROUP
from cupola.quantize.layouts import OUT_BLOCK

WORDS = GROUP // 2  # of a line
LINE = WORDS + 4
QUAD = 4  # words that are moved together

Finish = Callable[[Expr, Expr, Expr, tuple[Expr, ...]], None]  # (row, block, output in it, sums), all of the tile


@dataclass(frozen=True)
class MatrixTile:
    """A tile: warps beside and above each other, each with tiles of the matrix unit.

    Args:
        halves: blocks of the matrix that make one of the result; with two, they lie one after the other.
        across, down: warps along the outputs and along the rows.
        row_tiles: tiles of 16 rows of a warp.
    """

    matrix: Packed
    unit: MatrixUnit
    halves: int = 1
    across: int = 4
    down: int = 2
    row_tiles: int = 4

    output_tiles = 4  # tiles of 8 outputs of a warp: two blocks

    @property
    def threads(self) -> int:
        return self.across * self.down * WARP

    @property
    def rows(self) -> int:
        return self.down * self.row_tiles * ROWS

    @property
    def blocks(self) -> int:
        """Blocks of the matrix."""
        return self.across * self.output_tiles * OUTPUTS // OUT_BLOCK

    def run(self, block: Block, x: Span, w: Span, row: Place, place: Place, finish: Finish) -> None:
        """Multiplies the tile; `row` and `place` as in `linear_tile.py`."""
        multiply = self.unit.begin(block)
        warp, lane = split(block.thread, WARP)
        line, column = split(warp, self.across)
        g, t = split(lane, 4)
        sums = registers(self.row_tiles * self.output_tiles * SUMS, fill=zero())
        xs, ws = shared(self.rows * LINE, "uint32"), shared(self.blocks * OUT_BLOCK * LINE, "uint32")
        first_row, first_output = let(line * (self.row_tiles * ROWS)), let(column * (self.output_tiles * OUTPUTS))
        with serial(self.matrix.inputs // GROUP) as step:
            sync()
            self._load_rows(block, x, xs, row, step)
            self._load_weights(block, w, ws, place, step)
            sync()
            for k in range(GROUP // INPUTS):
                word = let(t + k * (INPUTS // 2))
                a, b = registers(self.row_tiles * A_WORDS, "uint32"), registers(self.output_tiles * B_WORDS, "uint32")
                for i in range(self.row_tiles):
                    for part in range(A_WORDS):
                        at = let((first_row + (i * ROWS + part % 2 * 8) + g) * LINE + word)
                        a.put(i * A_WORDS + part, xs.at(at + part // 2 * 4))
                for j in range(self.output_tiles):
                    at = let((first_output + j * OUTPUTS + g) * LINE + word)
                    for part in range(B_WORDS):
                        b.put(j * B_WORDS + part, ws.at(at + part * 4))
                for i in range(self.row_tiles):
                    for j in range(self.output_tiles):
                        multiply(a, i * A_WORDS, b, j * B_WORDS, sums, (i * self.output_tiles + j) * SUMS)
        self._finish(sums, first_row, column, (g, t), finish)

    def _finish(self, sums: Span, first_row: Expr, column: Expr, lane: tuple[Expr, Expr], finish: Finish) -> None:
        g, t = lane
        tiles_of_block = OUT_BLOCK // OUTPUTS
        mine = self.output_tiles // tiles_of_block  # blocks of the matrix of a warp
        for i in range(self.row_tiles):
            for high in range(2):
                row = let(first_row + (i * ROWS + high * 8) + g)
                for b in range(mine // self.halves):
                    index = let(column * (mine // self.halves) + b)
                    for tile in range(tiles_of_block):
                        for e in range(2):
                            places = [(b * self.halves + half) * tiles_of_block + tile for half in range(self.halves)]
                            values = [sums.at((i * self.output_tiles + j) * SUMS + high * 2 + e) for j in places]
                            finish(row, index, let(t * 2 + (tile * OUTPUTS + e)), tuple(values))

    def _load_rows(self, block: Block, x: Span, xs: Span, row: Place, step: Expr) -> None:
        """Four words at a time: as they are, or rounded out of float32."""
        straight = str(x.buffer.dtype) in ("float16", "uint16")
        words = x.viewed("uint32") if straight else x

        def load(at: Expr) -> None:
            r, quad = split(at, WORDS // QUAD)
            source, target = let(row(r) * self.matrix.inputs + step * GROUP + quad * 8), let(r * LINE + quad * QUAD)
            if straight:
                xs.store(target, words.load(let(source >> i32(1)), QUAD))
                return
            for i in range(QUAD):
                pair = self.unit.pair(read(x, let(source + 2 * i)), read(x, let(source + 2 * i + 1)))
                xs.put(target + i, pair)

        _unrolled(block, self.rows * (WORDS // QUAD), load)

    def _load_weights(self, block: Block, w: Span, ws: Span, place: Place, step: Expr) -> None:
        """Every thread unpacks units of its own, two neighbouring ones where a unit has but one input."""
        matrix, width = self.matrix, self.matrix.in_word
        together = 2 if matrix.depth == 1 else 1
        units, across = GROUP // (matrix.depth * together), OUT_BLOCK // width

        def load(at: Expr) -> None:
            rest, word = split(at, across)
            b, k = split(rest, units)
            first, where = let(word * width), place(b)
            start = let((step * units + k) * together)
            found = [matrix.unit(w, where, let(start + i), first, width) for i in range(together)]
            for o in range(width):
                values = [(at_, unit.value(o, i)) for unit in found for i, at_ in enumerate(unit.inputs)]
                line = let((b * OUT_BLOCK + first + o) * LINE)
                for (position, low), (_, high) in zip(values[::2], values[1::2], strict=True):
                    inside = let((position - step * GROUP) >> i32(1))
                    ws.put(line + inside, self.unit.pair(low, high))

        _unrolled(block, self.blocks * units * across, load)


def _unrolled(block: Block, count: int, body: Callable[[Expr], None]) -> None:
    """As `Block.each`, written out, so that the loads of all rounds are under way together."""
    if count % block.threads:
        block.each(count, body)
        return
    for i in range(count // block.threads):
        body(let(block.thread + i * block.threads))
