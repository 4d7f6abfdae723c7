"""Where top-k and top-p cut a row: a search for the key of the last token that is kept, four bits at a time.

Every pass counts (or weighs) what is at least as large as fifteen pivots, in all parts of a row at once; the next one
begins with choosing among them. It needs neither sorting nor atomics, and its sums have one order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, bits, branch, cast, f32, i32, let, select
from cupola.kernels.gpu.emit import Block, launch, registers, serial, shared, sync, u32
from cupola.kernels.gpu.sample_row import (
    EACH,
    SETTINGS,
    THREADS,
    TOP_K,
    TOP_P,
    Rows,
    Threshold,
    Weighing,
    held,
    key_of,
    strided,
    value_of,
)

PIVOTS = 16
PASSES = 8
STATE = 2  # of a row and pass: the key so far, and how much lies above the keys that begin like it


def scratch(rows: Rows, m: tirx.Var) -> dict[str, Arg]:
    """What a search needs of memory: sums of two passes, states of all, and what it searches for."""
    return {
        "sums": Arg((2, m, rows.parts, PIVOTS), "float32"),
        "states": Arg((PASSES + 1, m, STATE), "int32"),
        "targets": Arg((m,), "float32"),
    }


@dataclass(frozen=True)
class Search:
    """A search in those rows that `listed` names.

    Args:
        mass: for the weight of what is kept, as top-p asks, and not for its number.
        spans: all arguments by name: settings, known, changed, thresholds, measured, and those of `scratch`.
    """

    rows: Rows
    mass: bool
    listed: Span
    spans: dict[str, Span]
    m: tirx.Var

    def run(self, count: Expr) -> None:
        """Launches it for `count` rows, and leaves the thresholds tightened."""
        with launch(THREADS, 1, count) as block:
            self._begin(block)
        with serial(PASSES) as step, launch(THREADS, self.rows.parts, count) as block:
            self._pass(block, step)
        with launch(THREADS, 1, count) as block:
            self._end(block)

    def _weighing(self, row: Expr) -> Weighing:
        return Weighing.of(self.spans["settings"], self.spans["known"], row, floor=False)

    def _begin(self, block: Block) -> None:
        row = self.listed.at(block.y)
        sums, states = self.spans["sums"], self.spans["states"]
        first = let(row * (self.rows.parts * PIVOTS))
        block.each(self.rows.parts * PIVOTS, lambda i: sums.put(first + i, f32(0.0)))

        def once() -> None:
            states.put(row * STATE, i32(0))
            states.put(row * STATE + 1, i32(0))
            self.spans["targets"].put(row, self._wanted(row))

        branch(block.thread == 0, once)

    def _wanted(self, row: Expr) -> Expr:
        settings = self.spans["settings"]
        if not self.mass:
            return cast(settings.at(row * SETTINGS + TOP_K), "float32")
        threshold = Threshold.of(self.spans["thresholds"], row, self._weighing(row))
        share = bits(settings.at(row * SETTINGS + TOP_P), "float32")
        return let(share * kept_of_row(self.rows, self.spans["measured"], row, threshold))

    def _pass(self, block: Block, step: Expr) -> None:
        row, memory = self.listed.at(block.y), shared(THREADS * EACH)
        # The pass before this one looked at digits that weigh 16 times as much; before the first, at nothing.
        unit = let(u32(1) << cast(28 - 4 * step, "uint32"))
        key, above = self._chosen(block, memory, row, step, let(unit * u32(PIVOTS)))
        branch(
            tirx.And(block.x == 0, block.thread == 0),
            lambda: self._remember(row, let(step + 1), bits(key, "int32"), above),
        )
        totals = registers(PIVOTS, fill=f32(0.0))
        weighing, start = self._weighing(row), let(row * self.rows.stride)

        def add(at: Expr) -> None:
            value = self.rows.value(self.spans["changed"], start, at)
            mine = key_of(value)
            weight = weighing.weight(value) if self.mass else f32(1.0)
            for d in range(1, PIVOTS):
                found = select(mine >= let(key + unit * u32(d)), weight, f32(0.0))
                totals.put(d, let(totals.at(d) + found))

        strided(block, add)
        self._fold(block, memory, row, step, totals)

    def _remember(self, row: Expr, step: Expr, key: Expr, above: Expr) -> None:
        at = let((step * self.m + row) * STATE)
        self.spans["states"].put(at, key)
        self.spans["states"].put(at + 1, bits(above, "int32"))

    def _fold(self, block: Block, memory: Span, row: Expr, step: Expr, totals: Span) -> None:
        """Adds the threads' sums up and stores them, sixteen a part."""
        sync()
        for d in range(PIVOTS):
            memory.put(d * THREADS + block.thread, totals.at(d))
        sync()
        d, chunk = let(block.thread & i32(PIVOTS - 1)), let(block.thread >> i32(4))
        sum_ = f32(0.0)
        for r in range(PIVOTS):
            # Neighbouring threads begin at neighbouring places, which lie in different banks.
            place = let(chunk * PIVOTS + ((d + r) & i32(PIVOTS - 1)))
            sum_ = let(sum_ + memory.at(d * THREADS + place))
        _gather(block, memory, sum_)
        slot = let((((step + 1) & i32(1)) * self.m + row) * self.rows.parts + block.x)
        branch(
            block.thread < PIVOTS,
            lambda: self.spans["sums"].put(slot * PIVOTS + block.thread, memory.at(THREADS + block.thread)),
        )

    def _chosen(self, block: Block, memory: Span, row: Expr, step: Expr, unit: Expr) -> tuple[Expr, Expr]:
        """(the key with one more digit, what lies above the keys that begin so), from the sums of the pass before."""
        sums, sum_ = self.spans["sums"], registers(1, fill=f32(0.0))
        first = let(((step & i32(1)) * self.m + row) * self.rows.parts * PIVOTS)
        d, chunk = let(block.thread & i32(PIVOTS - 1)), let(block.thread >> i32(4))
        with serial(-(-self.rows.parts // PIVOTS)) as i:
            part = let(i * PIVOTS + chunk)
            branch(
                part < self.rows.parts,
                lambda: sum_.put(0, let(sum_.at(0) + sums.at(first + part * PIVOTS + d))),
            )
        _gather(block, memory, sum_.at(0))
        wanted, state = self.spans["targets"].at(row), let((step * self.m + row) * STATE)
        digit, above = i32(0), bits(self.spans["states"].at(state + 1), "float32")
        for d_ in range(PIVOTS - 1, 0, -1):
            total = memory.at(THREADS + d_)
            above = held(select(total < wanted, total, above))
        for d_ in range(1, PIVOTS):
            digit = held(select(memory.at(THREADS + d_) >= wanted, i32(d_), digit))
        key = bits(self.spans["states"].at(state), "uint32")
        return let(key + cast(digit, "uint32") * unit), above

    def _end(self, block: Block) -> None:
        row, memory = self.listed.at(block.y), shared(THREADS + PIVOTS)
        key, above = self._chosen(block, memory, row, i32(PASSES), u32(1))
        branch(block.thread == 0, partial(self._tighten, row, key, above))

    def _tighten(self, row: Expr, key: Expr, above: Expr) -> None:
        thresholds = self.spans["thresholds"]
        missing = let(self.spans["targets"].at(row) - above)
        if self.mass:
            weight = self._weighing(row).weight(value_of(key))
            missing = let(tirx.ceil(let(missing / tirx.max(weight, f32(1e-38)))))
        equals = let(tirx.max(missing, f32(1.0)))
        before, limit = bits(thresholds.at(row * 2), "uint32"), bits(thresholds.at(row * 2 + 1), "float32")

        def put() -> None:
            least = select(key == before, let(tirx.min(equals, limit)), equals)
            thresholds.put(row * 2, bits(key, "int32"))
            thresholds.put(row * 2 + 1, bits(least, "int32"))

        branch(key >= before, put)


def _gather(block: Block, memory: Span, value: Expr) -> None:
    """Sums the values of the threads of each digit to memory[THREADS + digit], for all."""
    sync()
    memory.put(block.thread, value)
    sync()

    def sum_() -> None:
        total = f32(0.0)
        for chunk in range(THREADS // PIVOTS):
            total = let(total + memory.at(chunk * PIVOTS + block.thread))
        memory.put(THREADS + block.thread, total)

    branch(block.thread < PIVOTS, sum_)
    sync()


def kept_of_row(rows: Rows, measured: Span, row: Expr, threshold: Threshold) -> Expr:
    """The weight of all that a row keeps."""
    total, seen = registers(1, fill=f32(0.0)), registers(1, fill=f32(0.0))
    with serial(rows.parts) as part:
        at = let((row * rows.parts + part) * 2)
        sure, equal = measured.at(at), measured.at(at + 1)
        total.put(0, let(total.at(0) + threshold.kept(sure, equal, seen.at(0))))
        seen.put(0, let(seen.at(0) + equal))
    return total.at(0)
