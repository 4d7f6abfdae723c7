"""Products of many rows: tiles of rows and 64 outputs, weights unpacked once a tile into shared memory.

Sixteen threads stand side by side, each with the same output of four blocks; lines of them share the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cupola.kernels.emit import Expr, Span, let
from cupola.kernels.gpu.emit import Block, madd, read, registers, serial, shared, split, sync, zero
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import GROUP
from cupola.quantize.layouts import OUT_BLOCK

BLOCKS = 4  # of a tile
COLUMNS = BLOCKS * OUT_BLOCK

Place = Callable[[Expr], Expr]
Finish = Callable[[Expr, Expr, tuple[Expr, ...]], None]  # (row of the tile, output of a block, sums of the blocks)


@dataclass(frozen=True)
class Tile:
    """A tile of `rows` rows and four blocks of outputs.

    Args:
        threads: a multiple of 16 that divides 16 * rows.
    """

    matrix: Packed
    rows: int
    threads: int

    @property
    def depth(self) -> int:
        """Inputs that lie in shared memory at a time."""
        return GROUP if self.matrix.inputs % GROUP == 0 else GROUP // 2

    def run(self, block: Block, x: Span, w: Span, row: Place, place: Place, finish: Finish) -> None:
        """Multiplies the tile.

        Args:
            row: where a row of the tile is in x; always one that exists.
            place: which block of the matrix one of the tile's is; always one that exists.
        """
        lines, depth = self.threads // OUT_BLOCK, self.depth
        line, column = split(block.thread, OUT_BLOCK)
        mine = self.rows // lines
        sums = registers(mine * BLOCKS, fill=zero())
        xs, ws = shared(self.rows * depth), shared(depth * COLUMNS)
        with serial(self.matrix.inputs // depth) as step:
            sync()
            self._load_rows(block, x, xs, row, step)
            self._load_weights(block, w, ws, place, step)
            sync()
            with serial(depth) as k:
                weights = [ws.at(k * COLUMNS + b * OUT_BLOCK + column) for b in range(BLOCKS)]
                for r in range(mine):
                    value = xs.at((line + r * lines) * depth + k)
                    for b in range(BLOCKS):
                        at = r * BLOCKS + b
                        sums.put(at, madd(value, weights[b], sums.at(at)))
        for r in range(mine):
            totals = tuple(sums.at(r * BLOCKS + b) for b in range(BLOCKS))
            finish(let(line + r * lines), column, totals)

    def _load_rows(self, block: Block, x: Span, xs: Span, row: Place, step: Expr) -> None:
        def load(at: Expr) -> None:
            r, k = split(at, self.depth)
            xs.put(at, read(x, let(row(r) * self.matrix.inputs + step * self.depth + k)))

        block.each(self.rows * self.depth, load)

    def _load_weights(self, block: Block, w: Span, ws: Span, place: Place, step: Expr) -> None:
        """Every thread unpacks words of its own."""
        matrix, width = self.matrix, self.matrix.in_word
        units, across = self.depth // matrix.depth, OUT_BLOCK // width

        def load(at: Expr) -> None:
            rest, word = split(at, across)
            b, k = split(rest, units)
            first = let(word * width)
            unit = matrix.unit(w, place(b), let(step * units + k), first, width)
            for o in range(width):
                for i, position in enumerate(unit.inputs):
                    inside = let(position - step * self.depth)
                    ws.put(inside * COLUMNS + b * OUT_BLOCK + first + o, unit.value(o, i))

        block.each(BLOCKS * units * across, load)
