"""Products of many rows on matrix units: a pipeline of copies, matrix loads and multiplications.

A block of threads has a tile of outputs and rows. Rows, and weights as they are packed, come into shared memory by
copies that run several stages ahead. Rows come into registers one multiplication ahead, weights half a group (of 16)
ahead, and are unpacked there (`matrix_weights.py`). There is one barrier a stage. Rows lie in lines of 64 bytes, whose
four chunks are permuted such that eight rows of a matrix fall into different banks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from tvm import tirx

from cupola.kernels.emit import Expr, Index, Span, branch, i32, let
from cupola.kernels.gpu.emit import Block, registers, serial, split, sync, zero
from cupola.kernels.gpu.linear_tile import Place
from cupola.kernels.gpu.matrix_unit import A_WORDS, CHUNK, OUTPUTS, ROWS, SUMS, WARP, Instructions, MatrixUnit
from cupola.kernels.gpu.matrix_weights import Fragments, Lane, chunk_place, fragments, words_of
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import GROUP
from cupola.quantize.layouts import WORD

LINE = GROUP // 2  # words of a row in a stage's group
CHUNKS = LINE // CHUNK
HALVES = 2  # of a group
PAIR = 2 * OUTPUTS  # rows of which one instruction loads the fragments

Finish = Callable[[Expr, Expr, Expr, tuple[Expr, ...]], None]  # (row, block, output in it, sums), all of the tile


@dataclass(frozen=True)
class Shape:
    """What a tile is made of.

    Args:
        across, down: warps along the outputs and along the rows.
        blocks: of 16 outputs, of a warp.
        pairs: of eight rows each, of a warp.
        groups: of 32 inputs, of a stage.
        stages: that shared memory holds; at least three.
    """

    across: int
    down: int
    blocks: int
    pairs: int
    groups: int = 1
    stages: int = 4

    @property
    def threads(self) -> int:
        return self.across * self.down * WARP

    @property
    def rows(self) -> int:
        return self.down * self.pairs * PAIR


@dataclass(frozen=True)
class MatrixTile:
    """A tile of the product with one matrix.

    Args:
        halves: blocks of the matrix that make one of the result; with two, they lie one after the other.
    """

    matrix: Packed
    unit: MatrixUnit
    halves: int
    shape: Shape

    @property
    def blocks(self) -> int:
        """Blocks of the matrix."""
        return self.shape.across * self.shape.blocks

    @cached_property
    def block_words(self) -> int:
        """Words of a block and group."""
        return words_of(self.matrix)

    @property
    def group_words(self) -> int:
        """Words of a group in shared memory: rows, then weights."""
        return self.shape.rows * LINE + self.blocks * self.block_words

    @property
    def shared_bytes(self) -> int:
        return self.shape.stages * self.shape.groups * self.group_words * WORD

    def run(
        self, block: Block, x: Span, w: Span, row: Place, place: Place, groups: tuple[Index, int], finish: Finish
    ) -> None:
        """Multiplies the tile; `row` and `place` as in `linear_tile.py`.

        Args:
            x: 16-bit floats, or words of two.
            groups: the first group of inputs, and how many, a multiple of the stage's.
        """
        memory = self.unit.shared(self.shape.stages * self.shape.groups * self.group_words)
        _Pipeline(self, block, memory, groups).run(x, w, row, place, finish)


class _Pipeline:
    """One thread's part of a tile."""

    def __init__(self, tile: MatrixTile, block: Block, memory: Span, groups: tuple[Index, int]) -> None:
        self._tile, self._shape, self._block, self._memory = tile, tile.shape, block, memory
        self._first, self._count = groups
        self._do: Instructions = tile.unit.begin(block)
        warp, lane = split(block.thread, WARP)
        self._down, self._across = split(warp, self._shape.across)
        self._lane = Lane.of(lane)
        self._fragments: Fragments = fragments(tile.matrix, tile.unit.dtype, self._do, self._lane)
        # Of matrices 0 to 3: rows 0 to 7 at inputs 0 to 7 and 8 to 15 of a half, then rows 8 to 15.
        matrix, line = split(lane, 8)
        chunk = let((matrix & i32(1)) ^ ((line >> i32(1)) & i32(3)))
        rows = let(self._down * (self._shape.pairs * PAIR) + (matrix >> i32(1)) * OUTPUTS + line)
        self._lines = [let(rows * LINE + (chunk ^ i32(2 * half)) * CHUNK) for half in range(HALVES)]
        self._weights = let(self._across * (self._shape.blocks * tile.block_words) + self._shape.rows * LINE)
        count = self._shape.blocks
        self._sums = registers(count * self._shape.pairs * 2 * SUMS, fill=zero())
        self._rows = [registers(4, "uint32") for _ in range(2)]
        raw = [registers(count * self._fragments.raw, "uint32") for _ in range(2 if self._fragments.whole else 1)]
        self._raw = [raw[0], raw[-1]]

    def run(self, x: Span, w: Span, row: Place, place: Place, finish: Finish) -> None:
        shape, steps = self._shape, self._count // self._shape.groups
        copy = self._copies(x, w, row, place)
        for stage in range(shape.stages - 1):
            if stage < steps:
                copy(i32(stage), i32(stage))
            self._do.commit()
        self._do.wait(shape.stages - 2)
        sync()
        start = i32(0)
        self._load_weights(0, start, 0)
        self._load_rows(0, start, 0, 0)
        with serial(steps) as step:
            stage = split(step, shape.stages)[1]
            following = split(let(step + 1), shape.stages)[1]
            self._step(stage, following, lambda: self._issue(copy, step, steps))
        self._do.wait(0)
        self._finish(finish)

    def _issue(self, copy: Callable[[Expr, Expr], None], step: Expr, steps: int) -> None:
        """Copies what comes into the stage that all have left."""
        ahead = self._shape.stages - 1
        if steps > ahead:
            coming = let(step + ahead)
            branch(coming < steps, lambda: copy(coming, split(coming, self._shape.stages)[1]))
        self._do.commit()

    def _step(self, stage: Expr, following: Expr, issue: Callable[[], None]) -> None:
        """Multiplies one stage, half a group at a time, and loads the first half of the next one."""
        shape, halves = self._shape, self._shape.groups * HALVES
        here = let(stage * (shape.groups * self._tile.group_words))
        there = let(following * (shape.groups * self._tile.group_words))
        for turn in range(halves):
            last = turn + 1 == halves
            group, half = divmod((turn + 1) % halves, HALVES)
            base = let((there if last else here) + group * self._tile.group_words)
            a = self._unpacked(turn)

            def prepare(turn: int = turn, last: bool = last, base: Expr = base, half: int = half) -> None:
                if last:
                    # Other warps may still read what is left of this stage; so it is overwritten a stage later.
                    self._do.wait(shape.stages - 3)
                    sync()
                    issue()
                if half == 0 or self._fragments.each_half:
                    self._load_weights(turn + 1, base, half)

            self._multiply(turn, a, here, base, prepare)

    def _multiply(self, turn: int, a: Span, here: Expr, following: Expr, prepare: Callable[[], None]) -> None:
        """Multiplies half a group; the rows that come next are loaded while these are multiplied.

        `prepare` gets what comes in the next half. It waits for other warps, so that it stands amid multiplications.
        """
        shape = self._shape
        group, half = divmod(turn, HALVES)
        base = let(here + group * self._tile.group_words)
        for pair in range(shape.pairs):
            if pair == shape.pairs // 2:
                prepare()
            current = turn * shape.pairs + pair
            if pair + 1 < shape.pairs:
                self._load_rows(current + 1, base, half, pair + 1)
            else:
                self._load_rows(current + 1, following, (half + 1) % HALVES, 0)
            for eight in range(2):
                for i in range(shape.blocks):
                    at = (i * shape.pairs * 2 + pair * 2 + eight) * SUMS
                    self._do.multiply(a, i * A_WORDS, self._rows[current % 2], eight * 2, self._sums, at)

    def _unpacked(self, turn: int) -> Span:
        """Fragments of the weights of half a group."""
        raw = self._raw[turn % 2]
        if self._fragments.whole:
            return raw
        a = registers(self._shape.blocks * A_WORDS, "uint32")
        for i in range(self._shape.blocks):
            for at, word in enumerate(self._fragments.unpack(raw, i * self._fragments.raw, turn % HALVES)):
                a.put(i * A_WORDS + at, word)
        return a

    def _load_weights(self, turn: int, base: Expr, half: int) -> None:
        for i in range(self._shape.blocks):
            first = let(base + self._weights + i * self._tile.block_words)
            self._fragments.load(self._raw[turn % 2], i * self._fragments.raw, self._memory, first, half)

    def _load_rows(self, current: int, base: Expr, half: int, pair: int) -> None:
        self._do.load(self._rows[current % 2], 0, self._memory, let(base + self._lines[half] + pair * PAIR * LINE))

    def _copies(self, x: Span, w: Span, row: Place, place: Place) -> Callable[[Expr, Expr], None]:
        """What copies one step's inputs to a stage. Where a thread's chunks are is found once."""
        tile, matrix = self._tile, self._tile.matrix
        xs = x if str(x.buffer.dtype) == "uint32" else x.viewed("uint32")
        ws = w if str(w.buffer.dtype) == "uint32" else w.viewed("uint32")
        chunks = tile.block_words // CHUNK

        def of_rows(at: Expr) -> tuple[Expr, Expr]:
            r, chunk = split(at, CHUNKS)
            inside = let(chunk ^ ((r >> i32(1)) & i32(3)))
            source = let(row(r) * (matrix.inputs // 2) + self._first * LINE + chunk * CHUNK)
            return source, let(r * LINE + inside * CHUNK)

        def of_weights(at: Expr) -> tuple[Expr, Expr]:
            b, chunk = split(at, chunks)
            source = let((place(b) * (matrix.inputs // GROUP) + self._first) * tile.block_words + chunk * CHUNK)
            inside = chunk_place(matrix, chunk)
            return source, let(b * tile.block_words + inside * CHUNK + self._shape.rows * LINE)

        parts = [
            (xs, LINE, _Share(self._block, self._shape.rows * CHUNKS, of_rows)),
            (ws, tile.block_words, _Share(self._block, tile.blocks * chunks, of_weights)),
        ]

        def copy(step: Expr, stage: Expr) -> None:
            for group in range(self._shape.groups):
                mine = let(step * self._shape.groups + group)
                base = let((stage * self._shape.groups + group) * tile.group_words)
                for source, words, share in parts:
                    share.each(partial(self._copy, source, let(mine * words), base))

        return copy

    def _copy(self, source: Span, start: Expr, base: Expr, at: Expr, to: Expr) -> None:
        self._do.copy(self._memory, let(base + to), source, let(start + at))

    def _finish(self, finish: Finish) -> None:
        shape, halves = self._shape, self._tile.halves
        for pair in range(shape.pairs * 2):
            for e in range(2):
                row = let((self._down * (shape.pairs * 2) + pair) * OUTPUTS + self._lane.t * 2 + e)
                for b in range(shape.blocks // halves):
                    index = let(self._across * (shape.blocks // halves) + b)
                    for high in range(ROWS // OUTPUTS):
                        places = [((b * halves + h) * shape.pairs * 2 + pair) * SUMS for h in range(halves)]
                        values = tuple(self._sums.at(at + high * 2 + e) for at in places)
                        finish(row, index, self._output(high), values)

    def _output(self, high: int) -> Expr:
        g = self._lane.g
        return let(g * 2 + high) if self._fragments.paired else let(g + high * OUTPUTS)


class _Share:
    """The chunks that a thread copies in one step.

    Args:
        place: of a chunk's number: where it comes from, and where it goes.
    """

    def __init__(self, block: Block, count: int, place: Callable[[Expr], tuple[Expr, Expr]]) -> None:
        self._places: list[tuple[Expr, Expr, Expr | None]] = []
        for start in range(0, count, block.threads):
            at = let(block.thread + start)
            whole = start + block.threads <= count
            there = None if whole else let(at < count)
            source, target = place(at if whole else let(tirx.min(at, i32(count - 1))))
            self._places.append((source, target, there))

    def each(self, copy: Callable[[Expr, Expr], None]) -> None:
        """Calls `copy` with the place that a chunk comes from and the one that it goes to."""
        for source, target, there in self._places:
            if there is None:
                copy(source, target)
            else:
                branch(there, partial(copy, source, target))
