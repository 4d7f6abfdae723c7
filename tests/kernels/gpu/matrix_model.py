"""The instructions of `matrix_unit.py` taken apart, as the PTX ISA defines them, for a device that has none of them.

Lanes read each other's words out of shared memory. Copies come when the kernel waits for them and no sooner, or at
once: a pipeline has to be right with either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cupola.kernels.emit import Expr, Span, bits, branch, cast, f32, i32, let
from cupola.kernels.gpu.emit import Block, madd, registers, serial, shared, split, sync, u32
from cupola.kernels.gpu.matrix_unit import A_WORDS, B_WORDS, CHUNK, SUMS, WARP, MatrixUnit
from cupola.kernels.gpu.weights import half_to_float

QUEUE, GROUPS = 12, 4  # copies of a thread and groups of them that may be under way
ENTRY = CHUNK + 1  # words of a copy: where it goes, and what
Floats = Callable[[Expr], tuple[Expr, Expr]]


def model(dtype: str, *, late: bool = False) -> MatrixUnit:
    """A matrix unit for tests."""
    return MatrixUnit(dtype, lambda block: Model.begin(block, dtype, late), "shared")


@dataclass(frozen=True)
class Model:
    """The instructions in one block of threads."""

    block: Block
    dtype: str
    words: Span
    lines: Span
    queue: Span | None
    counts: Span  # copies begun, copies done, -, and how many had begun when each of the last groups ended
    memories: list[Span]

    @classmethod
    def begin(cls, block: Block, dtype: str, late: bool) -> Model:
        words, lines = shared(block.threads * (A_WORDS + B_WORDS), "uint32"), shared(block.threads, "int32")
        queue = shared(block.threads * QUEUE * ENTRY, "uint32") if late else None
        return cls(block, dtype, words, lines, queue, registers(3 + GROUPS, "int32", i32(0)), [])

    def multiply(self, a: Span, a_at: int, b: Span, b_at: int, c: Span, c_at: int) -> None:
        sync()
        for i in range(A_WORDS):
            self.words.put(i * self.block.threads + self.block.thread, a.at(a_at + i))
        for i in range(B_WORDS):
            self.words.put((A_WORDS + i) * self.block.threads + self.block.thread, b.at(b_at + i))
        sync()
        g, t = split(self._lane, 4)
        totals = registers(SUMS, fill=f32(0.0))
        with serial(8) as k:  # words of two inputs
            half, inside = split(k, 4)
            for i in range(SUMS):
                a_word = self._word(let(half * 2 + i // 2), let(g * 4 + inside))
                b_word = self._word(let(half + A_WORDS), let(t * 8 + i % 2 * 4 + inside))
                for x, y in zip(self._floats(a_word), self._floats(b_word), strict=True):
                    totals.put(i, madd(x, y, totals.at(i)))
        for i in range(SUMS):
            c.put(c_at + i, let(c.at(c_at + i) + totals.at(i)))

    def load(self, words: Span, at: int, memory: Span, line: Expr, *, transposed: bool = False) -> None:
        self.lines.put(self.block.thread, line)
        sync()
        g, t = split(self._lane, 4)
        for matrix in range(4):
            if not transposed:
                words.put(at + matrix, memory.at(self._line(let(g + matrix * 8)) + t))
                continue
            column, high = split(g, 2)
            shift = cast(let(high * 16), "uint32")
            low, up = (memory.at(self._line(let(t * 2 + matrix * 8 + i)) + column) for i in range(2))
            halves = [let((word >> shift) & u32(0xFFFF)) for word in (low, up)]
            words.put(at + matrix, let(halves[0] | let(halves[1] << u32(16))))
        sync()

    def copy(self, memory: Span, to: Expr, source: Span, at: Expr) -> None:
        words = [source.at(at + i) for i in range(CHUNK)]
        if self.queue is None:
            for i, word in enumerate(words):
                memory.put(to + i, word)
            return
        self.memories.append(memory)
        entry = self._entry(self.counts.at(0))
        for i, word in enumerate([cast(to, "uint32"), *words]):
            self.queue.put(entry + i, word)
        self.counts.put(0, let(self.counts.at(0) + 1))

    def commit(self) -> None:
        for i in range(GROUPS - 1):
            self.counts.put(3 + i, self.counts.at(4 + i))
        self.counts.put(2 + GROUPS, self.counts.at(0))

    def wait(self, pending: int) -> None:
        if self.queue is None or not self.memories:
            return
        end = self.counts.at(2 + GROUPS - pending)
        queue, memory = self.queue, self.memories[0]
        with serial(QUEUE) as number:

            def come() -> None:
                entry = self._entry(number)
                to = cast(queue.at(entry), "int32")
                for i in range(CHUNK):
                    memory.put(to + i, queue.at(entry + 1 + i))

            behind = split(let(number + QUEUE - split(self.counts.at(1), QUEUE)[1]), QUEUE)[1]
            branch(behind < end - self.counts.at(1), come)
        self.counts.put(1, end)

    def _entry(self, number: Expr) -> Expr:
        return let((self.block.thread * QUEUE + split(number, QUEUE)[1]) * ENTRY)

    def fetch(self, words: Span, at: int, source: Span, place: Expr, count: int, *, early: bool) -> None:  # noqa: ARG002
        for i in range(count):
            words.put(at + i, source.at(place + i))

    def permute(self, a: Expr, b: Expr, selector: Expr) -> Expr:
        found: Expr = u32(0)
        for i in range(4):
            chosen = let((selector >> u32(4 * i)) & u32(7))
            word = let(a ^ let(let(a ^ b) & let(u32(0) - let(chosen >> u32(2)))))
            byte = let((word >> let((chosen & u32(3)) * u32(8))) & u32(0xFF))
            found = let(found | let(byte << u32(8 * i)))
        return found

    def overlay(self, word: Expr, mask: Expr, bits: Expr) -> Expr:
        return let(let(word & mask) | bits)

    def fma(self, a: Expr, b: Expr, c: Expr) -> Expr:
        halves = zip(*(_halves(_kept(word)) for word in (a, b, c)), strict=True)
        low, high = (_to_half(let(x * y + z)) for x, y, z in halves)
        return let(low | let(high << u32(16)))

    def pair(self, low: Expr, high: Expr) -> Expr:
        code = _to_half if self.dtype == "float16" else _to_bfloat
        return let(code(low) | let(code(high) << u32(16)))

    @property
    def _lane(self) -> Expr:
        return split(self.block.thread, WARP)[1]

    def _line(self, lane: Expr) -> Expr:
        return self.lines.at(split(self.block.thread, WARP)[0] * WARP + lane)

    def _word(self, place: Expr, lane: Expr) -> Expr:
        return self.words.at(place * self.block.threads + split(self.block.thread, WARP)[0] * WARP + lane)

    def _floats(self, word: Expr) -> tuple[Expr, Expr]:
        if self.dtype == "float16":
            return _halves(word)
        return bits(let(word << u32(16)), "float32"), bits(let(word & u32(0xFFFF0000)), "float32")


def _halves(word: Expr) -> tuple[Expr, Expr]:
    return half_to_float(let(word & u32(0xFFFF)), False), half_to_float(let(word >> u32(16)), False)


def _to_bfloat(value: Expr) -> Expr:
    code = bits(value, "uint32")
    return let((code + (u32(0x7FFF) + ((code >> u32(16)) & u32(1)))) >> u32(16))


def _to_half(value: Expr) -> Expr:
    """Of a finite float32; what is too large becomes infinite, ties of subnormals go up."""
    code = _kept(bits(value, "uint32"))
    magnitude, result = let(code & u32(0x7FFFFFFF)), registers(1, "uint32")
    rounded = let((magnitude + (u32(0xFFF) + ((magnitude >> u32(13)) & u32(1)))) >> u32(13))
    result.put(0, let(rounded - u32(112 << 10)))
    small = cast(let(bits(magnitude, "float32") * f32(2.0**24) + f32(0.5)), "uint32")
    branch(magnitude < u32(113 << 23), lambda: result.put(0, small))
    branch(magnitude > u32(0x477FEFFF), lambda: result.put(0, u32(0x7C00)))
    return let(result.at(0) | let((code >> u32(16)) & u32(0x8000)))


def _kept(value: Expr) -> Expr:
    """The value out of a register: a chain of named comparisons sends TVM's prover off for minutes."""
    word = registers(1, "uint32")
    word.put(0, value)
    return word.at(0)
