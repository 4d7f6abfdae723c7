"""Products of experts: for every pair of a row and one of its experts.

Few pairs go one by one. Of many, those of one expert make tiles of rows, whose places the order of pairs gives: on
matrix units where the device has them, of few rows or of many by how many pairs an expert has on average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, branch, i32, let
from cupola.kernels.gpu.column_choice import columns_of
from cupola.kernels.gpu.columns import Columns
from cupola.kernels.gpu.emit import Block, ceildiv, kernel, last_beginning, launch, size_var, slots, split
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import TILE_THREADS
from cupola.kernels.gpu.linear_matrix import MatrixTile
from cupola.kernels.gpu.linear_rows import FewRows
from cupola.kernels.gpu.linear_tile import BLOCKS, Tile
from cupola.kernels.gpu.matrix_shapes import Shapes
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import GROUP
from cupola.quantize.layouts import OUT_BLOCK

FEW_PAIRS = 32  # up to which each goes by itself
TILE_ROWS = 16
FEW_OF_EXPERT = 48  # pairs of an expert on average, up to which matrix units take tiles of few rows


@dataclass(frozen=True)
class Experts:
    """The products of one layer's experts.

    Args:
        matrix: all of them, one below the other.
        ending: of one.
        count, used: experts in all, and of one row.
        pairs: x has a row for each pair; else one for each row of the step.
        x, y: the types of what goes in and comes out.
    """

    matrix: Packed
    ending: Ending
    count: int
    used: int
    pairs: bool
    x: str
    y: str
    gpu: Gpu

    @property
    def halves(self) -> int:
        return 2 if self.ending.gated else 1

    @property
    def blocks(self) -> int:
        """Blocks of outputs of y."""
        return self.ending.width // OUT_BLOCK

    def source(self, pair: Expr) -> Expr:
        """The row of x that a pair has."""
        return pair if self.pairs else let(tirx.truncdiv(pair, i32(self.used)))

    def block_of(self, expert: Expr, block: Expr, half: Expr | int) -> Expr:
        """Where a block of an expert is in the matrix."""
        return let((expert * self.halves + half) * self.blocks + block)

    def store(self, spans: dict[str, Span], pair: Expr, expert: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
        self.ending.store(spans, pair, output, sums, let(expert * self.ending.outputs))


def linear_experts(spec: Experts) -> tirx.PrimFunc:
    """(x, experts int32[pairs], order int32[pairs], begins int32[count + 1], w, b if biased) -> [pairs, width]."""
    n, pairs = size_var("n"), size_var("pairs")
    args = {
        "x": Arg((pairs if spec.pairs else n, spec.matrix.inputs), spec.x),
        "experts": Arg((pairs,), "int32"),
        "order": Arg((pairs,), "int32"),
        "begins": Arg((spec.count + 1,), "int32"),
        "w": Arg(spec.matrix.shape, spec.matrix.dtype),
        **({"b": Arg((spec.matrix.outputs,), "float32")} if spec.ending.bias else {}),
        "y": Arg((pairs, spec.ending.width), spec.y),
    }

    def body(**spans: Span) -> None:
        branch(pairs <= FEW_PAIRS, lambda: _one_by_one(spec, spans, pairs), lambda: _many(spec, spans, pairs))

    return kernel(f"experts_{spec.matrix.format.value}", args, body)


def _one_by_one(spec: Experts, spans: dict[str, Span], pairs: Expr) -> None:
    columns = columns_of(spec.matrix, spec.gpu.matrix, spec.x, 1, spec.halves)
    if columns is not None:
        in_columns(spec, spans, pairs, columns)
        return
    way = FewRows.of(spec.matrix, spec.gpu.threads)
    with launch(way.threads, spec.blocks, pairs) as block:
        expert = spans["experts"].at(block.y)
        blocks = [spec.block_of(expert, block.x, half) for half in range(spec.halves)]

        def finish(_: int, output: Expr, sums: tuple[Expr, ...]) -> None:
            spec.store(spans, block.y, expert, let(block.x * OUT_BLOCK + output), sums)

        way.run(block, spans["x"], spans["w"], [spec.source(block.y)], blocks, finish)


def in_columns(spec: Experts, spans: dict[str, Span], pairs: Expr, way: Columns) -> None:
    """Launches a grid that takes one pair at a time."""
    mine, last = way.outputs // OUT_BLOCK, i32(spec.blocks - 1)
    with launch(way.threads, ceildiv(spec.blocks, mine), pairs) as block:
        expert, first = spans["experts"].at(block.y), let(block.x * mine)
        places = [let(tirx.min(first + i, last)) for i in range(mine)]
        blocks = [spec.block_of(expert, place, half) for place in places for half in range(spec.halves)]

        def finish(_: Expr, b: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
            index = let(first + b)
            place = let(index * OUT_BLOCK + output)
            branch(index < spec.blocks, lambda: spec.store(spans, block.y, expert, place, sums))

        way.run(block, spans["x"], spans["w"], lambda _: spec.source(block.y), blocks, finish)


def _many(spec: Experts, spans: dict[str, Span], pairs: Expr) -> None:
    shapes = Shapes.of(spec.matrix, spec.gpu.matrix, spec.x)
    if shapes is None:
        _tiles(spec, spans, pairs)
        return
    few, some, _ = shapes.tiles(spec.halves)
    limit = FEW_OF_EXPERT * spec.count
    branch(pairs <= limit, lambda: on_units(spec, spans, pairs, few), lambda: on_units(spec, spans, pairs, some))


@dataclass(frozen=True)
class _Part:
    """A tile of one expert's pairs.

    Args:
        begin, end: of the order of pairs: where the tile begins, and where the expert's pairs end.
    """

    spec: Experts
    spans: dict[str, Span]
    expert: Expr
    begin: Expr
    end: Expr
    first_block: Expr

    @classmethod
    def of(cls, spec: Experts, spans: dict[str, Span], block: Block, rows: int, across: int) -> _Part:
        begins = spans["begins"]

        def first_slot(e: Expr) -> Expr:
            return let(slots(begins.at(e), e, rows))

        expert = last_beginning(block.y, i32(spec.count), first_slot)
        begin = let(begins.at(expert) + (block.y - first_slot(expert)) * rows)
        return cls(spec, spans, expert, begin, begins.at(expert + 1), let(block.x * across))

    def place(self, index: Expr, half: Expr) -> Expr:
        """Where a block of the tile is in the matrix."""
        return self.spec.block_of(self.expert, let(tirx.min(self.first_block + index, i32(self.spec.blocks - 1))), half)

    def pair(self, r: Expr) -> Expr:
        """The pair of a row of the tile, or the expert's last one."""
        return self.spans["order"].at(tirx.min(self.begin + r, self.end - 1))

    def row(self, r: Expr) -> Expr:
        return self.spec.source(self.pair(r))

    def store(self, r: Expr, block: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
        index = let(self.first_block + block)
        there = let(tirx.And(self.begin + r < self.end, index < self.spec.blocks))
        place = let(index * OUT_BLOCK + output)
        branch(there, lambda: self.spec.store(self.spans, self.pair(r), self.expert, place, sums))

    def run(self, body: Callable[[], None]) -> None:
        """There are more tiles in the grid than some steps have."""
        branch(let(self.begin < self.end), body)


def _tiles(spec: Experts, spans: dict[str, Span], pairs: Expr) -> None:
    tile = Tile(spec.matrix, TILE_ROWS, TILE_THREADS)
    across = BLOCKS // spec.halves
    with launch(TILE_THREADS, ceildiv(spec.blocks, across), slots(pairs, spec.count, TILE_ROWS)) as block:
        part = _Part.of(spec, spans, block, TILE_ROWS, across)

        def place(b: Expr) -> Expr:
            return part.place(tirx.truncmod(b, i32(across)), tirx.truncdiv(b, i32(across)))

        def finish(r: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
            for b in range(across):
                part.store(r, i32(b), output, sums[b::across])

        part.run(lambda: tile.run(block, spans["x"], spans["w"], part.row, place, finish))


def on_units(spec: Experts, spans: dict[str, Span], pairs: Expr, tile: MatrixTile) -> None:
    """Launches a grid of tiles of matrix units."""
    rows, across = tile.shape.rows, tile.blocks // spec.halves
    groups = (0, spec.matrix.inputs // GROUP)
    with launch(tile.shape.threads, ceildiv(spec.blocks, across), slots(pairs, spec.count, rows)) as block:
        part = _Part.of(spec, spans, block, rows, across)

        def place(b: Expr) -> Expr:
            return part.place(*split(b, spec.halves))

        part.run(lambda: tile.run(block, spans["x"], spans["w"], part.row, place, groups, part.store))
