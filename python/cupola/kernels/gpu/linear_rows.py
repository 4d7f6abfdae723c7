"""Products of a few rows: the weights are read once, neighbours by neighbouring threads, and unpacked in registers.

A block of threads has one block of 16 outputs. Four threads (two, where a word has two outputs) share a step along the
inputs, the others stand further along; what they sum up is added through shared memory at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, branch, let
from cupola.kernels.gpu.emit import Block, ceildiv, read, registers, serial, shared, split, sync, zero
from cupola.kernels.gpu.weights import QUAD, Packed, dot, total_of
from cupola.quantize.layouts import OUT_BLOCK

MOST_ROWS = 4  # of one pass over the weights
_UNITS_A_THREAD = 4  # at least, where there are so many

Finish = Callable[
    [int, Expr, tuple[Expr, ...]], None
]  # (row, output of the block, sums of each of the matrix's blocks)


@dataclass(frozen=True)
class FewRows:
    """How the threads of a block divide a matrix's units among themselves."""

    matrix: Packed
    threads: int

    @classmethod
    def of(cls, matrix: Packed, most_threads: int) -> FewRows:
        wanted = matrix.units * (OUT_BLOCK // (QUAD * matrix.in_word)) // _UNITS_A_THREAD
        threads = 32
        while threads * 2 <= min(wanted, most_threads, 256):
            threads *= 2
        return cls(matrix, threads)

    @property
    def outputs(self) -> int:
        """Of one thread."""
        return QUAD * self.matrix.in_word

    @property
    def parts(self) -> int:
        """Threads that share a step."""
        return OUT_BLOCK // self.outputs

    @property
    def slices(self) -> int:
        """Steps at once."""
        return self.threads // self.parts

    def run(self, block: Block, x: Span, w: Span, rows: Sequence[Expr], blocks: Sequence[Expr], finish: Finish) -> None:
        """Multiplies some rows of x with some blocks of the matrix (the same outputs of a gate and what it gates)."""
        sums = registers(len(rows) * len(blocks) * self.outputs, fill=zero())
        slice_, part = split(block.thread, self.parts)
        starts = [let(row * self.matrix.inputs) for row in rows]

        def step(k: Expr) -> None:
            for b, index in enumerate(blocks):
                unit = self.matrix.unit(w, index, k, let(part * self.outputs), self.outputs)
                for r, start in enumerate(starts):
                    values = [read(x, start + at) for at in unit.inputs]
                    total = total_of(unit, values)
                    for o in range(self.outputs):
                        at = (r * len(blocks) + b) * self.outputs + o
                        sums.put(at, dot(unit, o, values, total, sums.at(at)))

        with serial(ceildiv(self.matrix.units, self.slices)) as i:
            k = let(i * self.slices + slice_)
            if self.matrix.units % self.slices:
                branch(k < self.matrix.units, lambda: step(k))
            else:
                step(k)
        self._reduce(block, sums, len(rows), len(blocks), finish)

    def _reduce(self, block: Block, sums: Span, rows: int, blocks: int, finish: Finish) -> None:
        """Adds up the slices: first of every line of sixteen threads, then of all lines."""
        lines = self.threads // OUT_BLOCK
        partial, folded = shared(self.slices * OUT_BLOCK), shared(rows * blocks * self.threads)
        slice_, part = split(block.thread, self.parts)
        line, output = split(block.thread, OUT_BLOCK)
        for i in range(rows * blocks):
            for o in range(self.outputs):
                partial.put(slice_ * OUT_BLOCK + part * self.outputs + o, sums.at(i * self.outputs + o))
            sync()
            total = partial.at(line * OUT_BLOCK + output)
            for j in range(1, self.slices // lines):
                total = let(total + partial.at((line + j * lines) * OUT_BLOCK + output))
            folded.put(i * self.threads + block.thread, total)
            sync()

        def last() -> None:
            for r in range(rows):
                totals = []
                for b in range(blocks):
                    at = (r * blocks + b) * self.threads
                    total = folded.at(at + output)
                    for j in range(1, lines):
                        total = let(total + folded.at(at + j * OUT_BLOCK + output))
                    totals.append(total)
                finish(r, output, tuple(totals))

        branch(line < 1, last)


def within(row: Expr, rows: Expr) -> Expr:
    """A row, or the last one if there are not so many."""
    return let(tirx.min(row, rows - 1))
