"""Matrix products y[n, N] = x[n, K] W[N, K]^T over packed weights, from one row to thousands.

The host chooses the grid by the number of rows:

    one row, or a few    every weight goes through registers once for up to four rows (`linear_rows.py`), or, on a
                         device that has instructions for tiles of matrices, for up to eight (`columns.py`)
    more                 tiles of 16 or 64 rows through shared memory (`linear_tile.py`), or, on a device that has
                         instructions for tiles of matrices, of 32 or 128 rows (`linear_matrix.py`, `matrix_shapes.py`)
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Index, Span, branch, i32, let
from cupola.kernels.gpu.column_choice import columns_of
from cupola.kernels.gpu.columns import Columns
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
MERGE_THREADS = 256  # of a grid that adds up partial sums
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

    def in_columns(self, n: Expr, spans: dict[str, Span], way: Columns) -> None:
        """Launches a grid that takes as many rows at a time as `way` says."""
        mine, last = way.outputs // OUT_BLOCK, i32(self.blocks - 1)  # blocks of y, of a block of threads and the last
        with launch(way.threads, ceildiv(self.blocks, mine), ceildiv(n, way.rows)) as block:
            first_row, first = let(block.y * way.rows), let(block.x * mine)
            places = [let(tirx.min(first + i, last)) for i in range(mine)]
            blocks = [let(place + half * self.blocks) for place in places for half in range(self.halves)]

            def finish(r: Expr, b: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
                row, index = let(first_row + r), let(first + b)
                branch(
                    let(tirx.And(row < n, index < self.blocks)),
                    lambda: self.ending.store(spans, row, let(index * OUT_BLOCK + output), sums),
                )

            way.run(block, spans["x"], spans["w"], lambda r: within(first_row + r, n), blocks, finish)

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

    @property
    def shapes(self) -> Shapes | None:
        """The tiles of matrix units, where they serve."""
        return Shapes.of(self.matrix, self.gpu.matrix, self.x)

    @property
    def partial_sums(self) -> int:
        """Elements of memory for sums over parts of the inputs (`on_units`)."""
        shapes = None if self.ending.gated else self.shapes
        return 0 if shapes is None else shapes.partial_rows * self.ending.width

    def args(self, n: Expr) -> dict[str, Arg]:
        """The tensors that the kernel takes; `parts` is memory for itself."""
        return {
            "x": Arg((n, self.matrix.inputs), self.x),
            "w": Arg(self.matrix.shape, self.matrix.dtype),
            **self.ending.args(n),
            "y": Arg((n, self.ending.width), self.y),
            **({"parts": Arg((self.partial_sums,), "float32")} if self.partial_sums else {}),
        }

    def on_units(self, n: Expr, spans: dict[str, Span], tile: MatrixTile, splits: int = 1) -> None:
        """Launches a grid of such tiles.

        Args:
            splits: parts that the inputs fall into, whose sums another grid adds up. Not of gated products.
        """
        mine = tile.blocks // self.halves  # blocks of y in a tile
        down, across = ceildiv(n, tile.shape.rows), -(-self.blocks // mine)
        groups = self.matrix.inputs // GROUP // splits
        with launch(tile.shape.threads, down * across, splits) as block:
            line, column = _turn(block.x, down, across)
            first_row, first_block = let(line * tile.shape.rows), let(column * mine)

            def place(b: Expr) -> Expr:
                index, half = split(b, self.halves)
                return let(tirx.min(first_block + index, i32(self.blocks - 1)) + half * self.blocks)

            def finish(r: Expr, b: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
                row, index = let(first_row + r), let(first_block + b)
                place = let(index * OUT_BLOCK + output)

                def store() -> None:
                    if splits == 1:
                        self.ending.store(spans, row, place, sums)
                    else:
                        spans["parts"].put((block.y * n + row) * self.ending.width + place, sums[0])

                branch(let(tirx.And(row < n, index < self.blocks)), store)

            part = (let(block.y * groups), groups)
            tile.run(block, spans["x"], spans["w"], lambda r: within(first_row + r, n), place, part, finish)
        if splits > 1:
            self._add_up(n, spans, splits)

    def _add_up(self, n: Expr, spans: dict[str, Span], splits: int) -> None:
        """Launches a grid that adds the sums of all parts, in their order."""
        width = self.ending.width
        with launch(MERGE_THREADS, ceildiv(width, MERGE_THREADS), n) as block:
            output = let(block.x * MERGE_THREADS + block.thread)

            def store() -> None:
                values = [spans["parts"].at((n * part + block.y) * width + output) for part in range(splits)]
                total = values[0]
                for value in values[1:]:
                    total = let(total + value)
                self.ending.store(spans, block.y, output, (total,))

            branch(output < width, store)


def _turn(index: Expr, down: Index, across: int) -> tuple[Expr, Expr]:
    """The tile (of rows, of outputs) that a block of threads has: those that run together are nearly a square, so that
    they find each other's rows and weights in the second level of the cache."""
    part, inside = split(index, TALL * across)
    first = let(part * TALL)
    tall = let(tirx.min(down - first, i32(TALL)))
    return let(first + tirx.truncmod(inside, tall)), let(tirx.truncdiv(inside, tall))


def linear(spec: Linear) -> tirx.PrimFunc:
    """Emits the product. Arguments: x; w; b when biased; r when residual; y; and `parts` (`Linear.args`)."""
    n = size_var("n")
    return kernel(spec.name, spec.args(n), lambda **spans: multiply(spec, n, spans))


def multiply(spec: Linear, n: Expr, spans: dict[str, Span]) -> None:
    """Launches what suits the number of rows."""

    def more() -> None:
        branch(n <= FEW, lambda: few(FEW), most)

    def few(rows: int) -> None:
        way = columns_of(spec.matrix, spec.gpu.matrix, spec.x, rows, spec.halves)
        if way is None:
            spec.few(n, spans, min(rows, MOST_ROWS))
        else:
            spec.in_columns(n, spans, way)

    def most() -> None:
        shapes = spec.shapes
        if shapes is None:
            small, large = TILE_ROWS
            branch(n <= 2 * small, lambda: spec.many(n, spans, small), lambda: spec.many(n, spans, large))
            return

        small_tile, some, many = shapes.tiles(spec.halves)
        ways = [(tile.shape.rows, tile, shapes.splits(tile)) for tile in (small_tile, some)]
        if spec.ending.gated:
            ways = [(rows, tile, 1) for rows, tile, _ in ways]
        if ways[1][2] == 1:
            ways.pop()
        _first_fitting(n, spec, spans, [*ways, (shapes.some, some, 1)], many)

    branch(n <= 1, lambda: few(1), more)


def _first_fitting(
    n: Expr, spec: Linear, spans: dict[str, Span], ways: list[tuple[int, MatrixTile, int]], last: MatrixTile
) -> None:
    """The first of some ways (most rows, tile, splits) that takes so many rows, or the last tile."""
    if not ways:
        spec.on_units(n, spans, last)
        return
    rows, tile, splits = ways[0]
    branch(
        n <= rows,
        lambda: spec.on_units(n, spans, tile, splits),
        lambda: _first_fitting(n, spec, spans, ways[1:], last),
    )
