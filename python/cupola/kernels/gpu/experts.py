"""Products of experts: for every pair of a row and one of its experts.

Few pairs go one by one. Of many, those of one expert make tiles of rows, whose places the order of pairs gives.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, branch, i32, let
from cupola.kernels.gpu.emit import ceildiv, kernel, last_beginning, launch, size_var, slots
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import TILE_THREADS
from cupola.kernels.gpu.linear_rows import FewRows
from cupola.kernels.gpu.linear_tile import BLOCKS, Tile
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.layouts import OUT_BLOCK

FEW_PAIRS = 32  # up to which each goes by itself
TILE_ROWS = 16


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
        branch(pairs <= FEW_PAIRS, lambda: _one_by_one(spec, spans, pairs), lambda: _tiles(spec, spans, pairs))

    return kernel(f"experts_{spec.matrix.format.value}", args, body)


def _one_by_one(spec: Experts, spans: dict[str, Span], pairs: Expr) -> None:
    way = FewRows.of(spec.matrix, spec.gpu.threads)
    with launch(way.threads, spec.blocks, pairs) as block:
        expert = spans["experts"].at(block.y)
        blocks = [spec.block_of(expert, block.x, half) for half in range(spec.halves)]

        def finish(_: int, output: Expr, sums: tuple[Expr, ...]) -> None:
            spec.store(spans, block.y, expert, let(block.x * OUT_BLOCK + output), sums)

        way.run(block, spans["x"], spans["w"], [spec.source(block.y)], blocks, finish)


def _tiles(spec: Experts, spans: dict[str, Span], pairs: Expr) -> None:
    tile = Tile(spec.matrix, TILE_ROWS, TILE_THREADS)
    across = BLOCKS // spec.halves
    order, begins = spans["order"], spans["begins"]
    with launch(TILE_THREADS, ceildiv(spec.blocks, across), slots(pairs, spec.count, TILE_ROWS)) as block:

        def first_slot(e: Expr) -> Expr:
            return let(slots(begins.at(e), e, TILE_ROWS))

        expert = last_beginning(block.y, i32(spec.count), first_slot)
        begin = let(begins.at(expert) + (block.y - first_slot(expert)) * TILE_ROWS)
        end = begins.at(expert + 1)
        first_block = let(block.x * across)

        def place(b: Expr) -> Expr:
            inside = let(tirx.min(first_block + tirx.truncmod(b, i32(across)), i32(spec.blocks - 1)))
            return spec.block_of(expert, inside, tirx.truncdiv(b, i32(across)))

        def pair(r: Expr) -> Expr:
            return order.at(tirx.min(begin + r, end - 1))

        def finish(r: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
            for b in range(across):
                index = let(first_block + b)

                def store(b: int = b, index: Expr = index) -> None:
                    spec.store(spans, pair(r), expert, let(index * OUT_BLOCK + output), sums[b::across])

                branch(let(tirx.And(begin + r < end, index < spec.blocks)), store)

        def run() -> None:
            tile.run(block, spans["x"], spans["w"], lambda r: spec.source(pair(r)), place, finish)

        branch(let(begin < end), run)
