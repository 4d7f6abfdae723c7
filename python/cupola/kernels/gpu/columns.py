"""Products of one to eight rows on matrix units: weights go from memory to registers to the unit, each read once.

A warp has two blocks of 16 outputs and steps along the inputs; warps share the inputs, and what they sum up is added
through shared memory at the end. The matrix unit multiplies by eight columns. Rows that are there take one each;
columns that are left over take other inputs of the same rows (`float_columns.py` and `code_columns.py` say which).

Loads of weights are 16 bytes of a thread, and those of a step are all asked for before anything that arrives is used.
What keeps memory busy is the number of bytes under way; it is kept up by many warps, which need few registers, rather
than by loads of the next step, which ptxas moves behind the arithmetic of this one (and takes 96 registers for 64).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tvm import tirx

from cupola.kernels.emit import Expr, Span, i32, let, select
from cupola.kernels.gpu.emit import Block, serial, shared, split, sync, u32
from cupola.kernels.gpu.matrix_unit import WARP, Instructions, MatrixUnit
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import GROUP
from cupola.quantize.layouts import OUT_BLOCK

COLUMNS = 8  # of the matrix unit
LINE = 2 * OUT_BLOCK + 1  # of sums in shared memory: one more than the outputs, so that lines begin in different banks
MOST_WARPS = 8
MANY_WARPS = {1: 16, 8: 12}  # by rows, where a multiprocessor has one block of threads, or two, and room for two
FEW_BLOCKS = 512  # of 16 outputs: up to so many

Row = Callable[[Expr], Expr]
Finish = Callable[[Expr, Expr, Expr, tuple[Expr, ...]], None]  # (row, block, output in it, sums), all of the tile


@dataclass(frozen=True)
class Lane:
    """A thread's place: its warp, and lane 4 g + t of it."""

    warp: Expr
    g: Expr
    t: Expr


class Share(Protocol):
    """What a thread has of a step, and its sums."""

    def fetch(self, first: Expr) -> None:
        """Asks for everything of a step, whose groups begin with `first`."""

    def multiply(self, first: Expr) -> None:
        """Multiplies it."""

    def store(self, partial: Span) -> None:
        """Puts sums to [slice of the block][row][output, up to LINE] of shared memory."""


@dataclass(frozen=True)
class Columns(ABC):
    """How a block of threads multiplies up to `rows` rows with two blocks of the matrix.

    Args:
        rows: 1, 2, 4 or 8.
        halves: blocks of the matrix that make one of the result.
    """

    matrix: Packed
    unit: MatrixUnit
    rows: int
    halves: int

    @property
    @abstractmethod
    def groups_a_step(self) -> int:
        """Groups of 32 inputs of which a warp reads both blocks at once."""

    @property
    @abstractmethod
    def slices(self) -> int:
        """Sums of every output that a warp has."""

    @property
    def groups(self) -> int:
        return self.matrix.inputs // GROUP

    @property
    def steps(self) -> int:
        """Of all warps together."""
        return -(-self.groups // self.groups_a_step)

    @property
    def warps(self) -> int:
        """As few as make the fewest rounds."""
        few = self.matrix.blocks <= FEW_BLOCKS and self.slices * self.rows <= COLUMNS
        most = MANY_WARPS.get(self.rows, MOST_WARPS) if few else MOST_WARPS
        return min(range(1, most + 1), key=lambda warps: (-(-self.steps // warps), warps))

    @property
    def early(self) -> bool:
        """Loads keep their order: with several rows, ptxas would ask for most of a step only when it needs it."""
        return self.rows > 1

    @property
    def rounds(self) -> int:
        return -(-self.steps // self.warps)

    @property
    def ragged(self) -> bool:
        """The last round has groups that do not exist."""
        return self.groups % (self.warps * self.groups_a_step) != 0

    @property
    def threads(self) -> int:
        return self.warps * WARP

    @property
    def outputs(self) -> int:
        """Of the result."""
        return 2 * OUT_BLOCK // self.halves

    def run(self, block: Block, x: Span, w: Span, row: Row, blocks: Sequence[Expr], finish: Finish) -> None:
        """Multiplies.

        Args:
            x: 16-bit floats of the unit's type.
            row: where a row of the tile is in x; always one that exists.
            blocks: two of the matrix.
        """
        warp, inside = split(block.thread, WARP)
        lane = Lane(warp, *split(inside, 4))
        share = self.share(self.unit.begin(block), x, w, lane, row, blocks)

        with serial(self.rounds) as i:
            first = let((i * self.warps + lane.warp) * self.groups_a_step)
            share.fetch(first)
            share.multiply(first)
        partial = shared(self.warps * self.slices * self.rows * LINE)
        share.store(partial)
        self._reduce(block, partial, finish)

    @abstractmethod
    def share(self, tools: Instructions, x: Span, w: Span, lane: Lane, row: Row, blocks: Sequence[Expr]) -> Share:
        """A thread's share of the work."""

    def existing(self, group: Expr) -> Expr:
        """A group, or the last one where there is no such group."""
        return let(tirx.min(group, i32(self.groups - 1))) if self.ragged else group

    def or_zero(self, group: Expr, words: Sequence[Expr]) -> list[Expr]:
        """Inputs of a group, or zeros where there is no such group."""
        if not self.ragged:
            return list(words)
        there = let(group < self.groups)
        return [select(there, word, u32(0)) for word in words]

    def _reduce(self, block: Block, partial: Span, finish: Finish) -> None:
        """Adds up the slices: each warp some, then the first threads what the warps have."""
        folded = shared(self.warps * self.rows * (LINE - 1))
        sync()
        line, output = split(block.thread, WARP)
        for r in range(self.rows):
            first = let((line * (self.slices * self.rows) + r) * LINE + output)
            total = partial.at(first)
            for s in range(1, self.slices):
                total = let(total + partial.at(first + s * self.rows * LINE))
            folded.put((line * self.rows + r) * (LINE - 1) + output, total)
        sync()

        def last(at: Expr) -> None:
            r, place = split(at, self.outputs)
            totals = []
            for half in range(self.halves):
                first = let(r * (LINE - 1) + place + half * OUT_BLOCK)
                total = folded.at(first)
                for i in range(1, self.warps):
                    total = let(total + folded.at(first + i * self.rows * (LINE - 1)))
                totals.append(total)
            finish(r, *split(place, OUT_BLOCK), tuple(totals))

        block.each(self.rows * self.outputs, last)


def fetch_inputs(tools: Instructions, words: Span, x: Span, at: Expr, *, early: bool) -> None:
    """Neighbouring inputs, two for each of the words; `at` is a multiple of their number."""
    tools.fetch(words, 0, x.viewed("uint32"), let(at >> i32(1)), int(words.buffer.shape[0]), early=early)


def pick(which: Expr, values: Sequence[Expr]) -> Expr:
    """The first or the second value."""
    return let(tirx.Select(let(which < 1), values[0], values[1]))
