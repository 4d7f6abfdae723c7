"""Matrix products y[n, N] = x[n, K] W[N, K]^T over packed weights, from one row to thousands.

The host chooses the grid by the number of rows:

    one row, or a few    every weight goes through registers once for up to four rows (`linear_rows.py`)
    more                 tiles of 16 or 64 rows through shared memory (`linear_tile.py`), or, on a device that has
                         instructions for tiles of matrices, of 32 or 128 rows (`linear_matrix.py`, `matrix_shapes.py`)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Index, Span, branch, i32, let
from cupola.kernels.gpu.emit import Block, ceildiv, kernel, launch, size_var, split
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear_matrix import MatrixTile
from cupola.kernels.gpu.linear_rows import MOST_ROWS, FewRows, within
from cupola.kernels.gpu.linear_tile import BLOCKS, Tile
from cupola.kernels.gpu.matrix_shapes import Shapes
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import GROUP
from cupola.quantize.layouts import OUT_BLOCK

FEW = 8  # rows up to which weights are not put into shared memory
TILE_ROWS = (16, 64)
TILE_THREADS = 256
TALL = 8  # tiles of rows that take turns before the next tiles of outputs


@dataclass(frozen=True)
class Linear:
    """One matrix product of a model.

    Args:
        x, y: the types of what goes in and comes out.
    """

    matrix: Packed
    ending: Ending
    x: str
    y: str
    gpu: Gpu

    @property
    def name(self) -> str:
        parts = {"gated": self.ending.gated, "bias": self.ending.bias, "residual": self.ending.residual}
        return "_".join(["linear", self.matrix.format.value, *(part for part, there in parts.items() if there)])

    @property
    def halves(self) -> int:
        """Blocks of W that make one of y."""
        return 2 if self.ending.gated else 1

    @property
    def blocks(self) -> int:
        """Blocks of outputs of y."""
        return self.matrix.blocks // self.halves

    def few(self, n: Expr, spans: dict[str, Span], rows: int) -> None:
        """Launches a grid that takes `rows` rows at a time."""
        way = FewRows.of(self.matrix, self.gpu.threads)
        with launch(way.threads, self.blocks, ceildiv(n, rows)) as block:
            first = let(block.y * rows)
            mine = [within(first + r, n) if rows > 1 else first for r in range(rows)]

            def finish(r: int, output: Expr, sums: tuple[Expr, ...]) -> None:
                place = let(block.x * OUT_BLOCK + output)
                row = let(first + r)
                if rows == 1:
                    self.ending.store(spans, row, place, sums)
                else:
                    branch(row < n, lambda: self.ending.store(spans, row, place, sums))

            way.run(block, spans["x"], spans["w"], mine, self._with_halves(block), finish)

    def _with_halves(self, block: Block) -> list[Expr]:
        return [let(block.x + half * self.blocks) for half in range(self.halves)]

    def many(self, n: Expr, spans: dict[str, Span], rows: int) -> None:
        """Launches a grid of tiles of `rows` rows."""
        tile = Tile(self.matrix, rows, TILE_THREADS)
        across = BLOCKS // self.halves  # blocks of y in a tile
        with launch(TILE_THREADS, ceildiv(self.blocks, across), ceildiv(n, rows)) as block:
            first_row, first_block = let(block.y * rows), let(block.x * across)

            def place(b: Expr) -> Expr:
                inside = let(tirx.min(first_block + tirx.truncmod(b, i32(across)), i32(self.blocks - 1)))
                return let(inside + tirx.truncdiv(b, i32(across)) * self.blocks)

            def finish(r: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
                row = let(first_row + r)
                for b in range(across):
                    index = let(first_block + b)

                    def store(b: int = b, index: Expr = index) -> None:
                        self.ending.store(spans, row, let(index * OUT_BLOCK + output), sums[b::across])

                    branch(let(tirx.And(row < n, index < self.blocks)), store)

            tile.run(block, spans["x"], spans["w"], lambda r: within(first_row + r, n), place, finish)

    def on_units(self, n: Expr, spans: dict[str, Span], tile: MatrixTile) -> None:
        """Launches a grid of such tiles."""
        mine = tile.blocks // self.halves  # blocks of y in a tile
        down, across = ceildiv(n, tile.shape.rows), -(-self.blocks // mine)
        with launch(tile.shape.threads, down * across) as block:
            line, column = _turn(block.x, down, across)
            first_row, first_block = let(line * tile.shape.rows), let(column * mine)

            def place(b: Expr) -> Expr:
                index, half = split(b, self.halves)
                return let(tirx.min(first_block + index, i32(self.blocks - 1)) + half * self.blocks)

            def finish(r: Expr, b: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
                row, index = let(first_row + r), let(first_block + b)
                branch(
                    let(tirx.And(row < n, index < self.blocks)),
                    lambda: self.ending.store(spans, row, let(index * OUT_BLOCK + output), sums),
                )

            groups = (0, self.matrix.inputs // GROUP)
            tile.run(block, spans["x"], spans["w"], lambda r: within(first_row + r, n), place, groups, finish)


def _turn(index: Expr, down: Index, across: int) -> tuple[Expr, Expr]:
    """The tile (of rows, of outputs) that a block of threads has: those that run together are nearly a square, so that
    they find each other's rows and weights in the second level of the cache."""
    part, inside = split(index, TALL * across)
    first = let(part * TALL)
    tall = let(tirx.min(down - first, i32(TALL)))
    return let(first + tirx.truncmod(inside, tall)), let(tirx.truncdiv(inside, tall))


def linear(spec: Linear) -> tirx.PrimFunc:
    """Emits the product. Arguments: x; w; b when biased; r when residual; y."""
    n = size_var("n")
    args = {
        "x": Arg((n, spec.matrix.inputs), spec.x),
        "w": Arg(spec.matrix.shape, spec.matrix.dtype),
        **spec.ending.args(n),
        "y": Arg((n, spec.ending.width), spec.y),
    }

    def body(**spans: Span) -> None:
        def more() -> None:
            branch(n <= FEW, lambda: spec.few(n, spans, MOST_ROWS), most)

        def most() -> None:
            shapes = Shapes.of(spec.matrix, spec.gpu.matrix, spec.x)
            if shapes is None:
                small, large = TILE_ROWS
                branch(n <= 2 * small, lambda: spec.many(n, spans, small), lambda: spec.many(n, spans, large))
                return

            def on(tile: MatrixTile) -> Callable[[], None]:
                return lambda: spec.on_units(n, spans, tile)

            few, some, many = (on(tile) for tile in shapes.tiles(spec.halves))
            branch(n <= shapes.few, few, lambda: branch(n <= shapes.some, some, many))

        branch(n <= 1, lambda: spec.few(n, spans, 1), more)

    return kernel(spec.name, args, body)
