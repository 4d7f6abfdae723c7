"""All parts of the context of one row and query head, merged by their largest scores and sums of weights.

A thread looks at the score of a part of its own, so that weights cost two loads one after the other, and threads of one
component then share the sums, several loads at a time: what a merge costs is waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, branch, f32, i32, let, select
from cupola.kernels.gpu.attention_spec import Attention, Parts, has_one_row, sink_of
from cupola.kernels.gpu.emit import (
    MASKED,
    Block,
    block_max,
    block_sum,
    ceildiv,
    launch,
    madd,
    registers,
    serial,
    shared,
    split,
    sync,
    write,
    zero,
)
from cupola.kernels.gpu.functions import exp

THREADS = 256
TOGETHER = 8  # loads


def merge(spec: Attention, t: dict[str, Span], b: Expr) -> None:
    """Launches a grid of rows times heads; sequences of several rows have nothing to merge."""
    with launch(THREADS, b, spec.pages.heads.queries) as block:
        s = block.x
        parts = Parts.of(spec, t, b)
        first, stop = parts.seen(s)
        work = _Merge(spec, t, block, let(parts.first_slot(s) + first), let(stop - first))
        branch(has_one_row(t, s), lambda: work.run(t["q_indptr"].at(s)))


@dataclass(frozen=True)
class _Merge:
    """One row and head: `count` slots from `slot` on."""

    spec: Attention
    arguments: dict[str, Span]
    block: Block
    slot: Expr
    count: Expr

    def run(self, row: Expr) -> None:
        heads, head, block, partials = self.spec.pages.heads, self.block.y, self.block, self.arguments["partials"]
        sink = sink_of(self.spec, self.arguments)
        logit = f32(MASKED) if sink is None else sink(head)
        scratch, weights = shared(THREADS), shared(THREADS)
        state = registers(2)
        state.put(0, logit)
        self._each(lambda at, _: state.put(0, let(tirx.max(state.at(0), partials.at(at)))))
        largest = block_max(block, scratch, state.at(0))
        state.put(1, zero())
        sharers = max(1, THREADS // heads.dim)
        components = -(-heads.dim // THREADS)
        sharer, mine = split(block.thread, heads.dim) if sharers > 1 else (i32(0), block.thread)
        sums = registers(components, fill=zero())

        def weigh(at: Expr, there: Expr) -> None:
            weight = let(select(there, exp(let(partials.at(at) - largest)), zero()))
            weights.put(block.thread, weight)
            state.put(1, madd(weight, partials.at(at + 1), state.at(1)))

        def add(begin: Expr) -> None:
            sync()
            self._add(begin, weights, (sharer, sharers), mine, sums)
            sync()

        self._each(weigh, add)
        total = block_sum(block, scratch, state.at(1))
        total = total if sink is None else let(total + exp(let(logit - largest)))
        total = let(tirx.Select(total > zero(), total, f32(1.0)))  # who sees nothing gets nothing
        self._store(row, scratch, sums, total, (sharer, sharers), mine)

    def _each(self, body: Callable[[Expr, Expr], None], then: Callable[[Expr], None] | None = None) -> None:
        """Calls body(where a slot's largest score and sum are, whether there is such a slot), a slot a thread; `then`
        with the first slot of each round."""
        heads = self.spec.pages.heads
        with serial(ceildiv(self.count, THREADS)) as round_:
            begin = let(round_ * THREADS)
            slot = let(tirx.min(begin + self.block.thread, self.count - 1))
            at = let(((self.slot + slot) * heads.queries + self.block.y) * (heads.dim + 2) + heads.dim)
            body(at, let(begin + self.block.thread < self.count))
            if then is not None:
                then(begin)

    def _add(self, begin: Expr, weights: Span, share: tuple[Expr, int], mine: Expr, sums: Span) -> None:
        """The values of one round's slots; weights are zero behind the last."""
        heads, (sharer, sharers) = self.spec.pages.heads, share
        count = let(tirx.min(self.count - begin, i32(THREADS)))
        with serial(ceildiv(count, sharers * TOGETHER)) as i:
            slots = [let((i * TOGETHER + u) * sharers + sharer) for u in range(TOGETHER)]
            places = [let(tirx.min(slot, count - 1) + self.slot + begin) for slot in slots]
            for c in range(len(range(0, heads.dim, THREADS))):
                component = let(tirx.min(mine + c * THREADS, i32(heads.dim - 1)))
                values = [
                    self.arguments["partials"].at((place * heads.queries + self.block.y) * (heads.dim + 2) + component)
                    for place in places
                ]
                for slot, value in zip(slots, values, strict=True):
                    weight = weights.at(tirx.min(slot, i32(THREADS - 1)))
                    sums.put(c, madd(value, select(slot < count, weight, zero()), sums.at(c)))

    def _store(self, row: Expr, scratch: Span, sums: Span, total: Expr, share: tuple[Expr, int], mine: Expr) -> None:
        heads, (sharer, sharers) = self.spec.pages.heads, share
        out = let((row * heads.queries + self.block.y) * heads.dim)
        if sharers > 1:
            scratch.put(self.block.thread, sums.at(0))
            sync()
            for other in range(1, sharers):
                place = let(tirx.min(self.block.thread + other * heads.dim, i32(THREADS - 1)))
                sums.put(0, let(sums.at(0) + scratch.at(place)))
        for c in range(len(range(0, heads.dim, THREADS))):
            component = let(mine + c * THREADS)
            first = let(tirx.And(sharer < 1, component < heads.dim))

            def store(c: int = c, component: Expr = component) -> None:
                write(self.arguments["y"], let(out + component), let(sums.at(c) / total))

            branch(first, store)
