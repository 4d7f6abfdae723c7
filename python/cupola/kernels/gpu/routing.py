"""Which experts a row goes to: `operations.Routing`, and pairs of rows and experts in the order of experts.

A block of threads has a row, a thread an expert: its place among the chosen ones is how many others are better.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, branch, f32, i32, let, select
from cupola.kernels.gpu.emit import (
    MASKED,
    Block,
    block_max,
    block_sum,
    ceildiv,
    kernel,
    launch,
    madd,
    read,
    registers,
    serial,
    shared,
    size_var,
    sync,
    zero,
)
from cupola.kernels.gpu.functions import exp, sigmoid
from cupola.kernels.routing import Routing

_OUT = 2 * MASKED  # what is not to be chosen


@dataclass(frozen=True)
class Route:
    """How scores become routes.

    Args:
        stride: of a row of scores.
        dtype: of scores.
        bias: there is one for the choice.
    """

    routing: Routing
    stride: int
    dtype: str
    bias: bool

    @property
    def threads(self) -> int:
        threads = 32
        while threads < min(self.routing.count, 256):
            threads *= 2
        return threads


def route(spec: Route) -> tirx.PrimFunc:
    """(scores[n, stride], selection bias float32[count] if there is one) -> weights float32[n, used, and one more for a
    shared gate], experts int32[n * used]."""
    n, pairs, routing = size_var("n"), size_var("pairs"), spec.routing
    width = routing.used + routing.shared_gate

    def body(scores: Span, weights: Span, experts: Span, bias: Span | None = None) -> None:
        with launch(spec.threads, n) as block:
            row = let(block.x * spec.stride)
            values, choice = shared(routing.count), shared(routing.count)
            chosen = shared(routing.used)
            _values(spec, block, scores, row, values)
            sync()

            def choose_by(e: Expr) -> None:
                choice.put(e, values.at(e) if bias is None else let(values.at(e) + bias.at(e)))

            def default(j: Expr) -> None:
                experts.put(let(block.x * routing.used + j), j)
                chosen.put(j, zero())

            block.each(routing.count, choose_by)
            block.each(routing.used, default)
            sync()
            if routing.groups_used < routing.groups:
                _limit_groups(routing, block, choice)
            block.each(routing.count, lambda e: _choose(routing, block, values, choice, chosen, experts, e))
            sync()
            block.each(routing.used, lambda j: weights.put(let(block.x * width + j), _weight(routing, chosen, j)))
            if routing.shared_gate:
                gate = sigmoid(read(scores, row + routing.count))
                branch(block.thread < 1, lambda: weights.put(let(block.x * width + routing.used), gate))

    args = {
        "scores": Arg((n, spec.stride), spec.dtype),
        **({"bias": Arg((routing.count,), "float32")} if spec.bias else {}),
        "weights": Arg((n, width), "float32"),
        "experts": Arg((pairs,), "int32"),
    }
    return kernel("route", args, body)


def _values(spec: Route, block: Block, scores: Span, row: Expr, values: Span) -> None:
    """Softmax or sigmoid of the scores."""
    count = spec.routing.count
    if spec.routing.function == "sigmoid":
        block.each(count, lambda e: values.put(e, sigmoid(read(scores, row + e))))
        return
    scratch, mine = shared(spec.threads), registers(1, fill=f32(MASKED))
    block.each(count, lambda e: mine.put(0, let(tirx.max(mine.at(0), read(scores, row + e)))))
    largest = block_max(block, scratch, mine.at(0))
    mine.put(0, zero())

    def weigh(e: Expr) -> None:
        value = exp(let(read(scores, row + e) - largest))
        values.put(e, value)
        mine.put(0, let(mine.at(0) + value))

    block.each(count, weigh)
    total = block_sum(block, scratch, mine.at(0))
    block.each(count, lambda e: values.put(e, let(values.at(e) / total)))


def _limit_groups(routing: Routing, block: Block, choice: Span) -> None:
    """Leaves the groups alone whose best choices add up to most."""
    size = routing.count // routing.groups
    best, out = shared(routing.groups), shared(routing.groups, "int32")

    def add_up(g: Expr) -> None:
        total = registers(1, fill=zero())

        def add(i: Expr) -> None:
            at = let(g * size + i)
            better = _better(choice, at, let(g * size), size)
            branch(better < routing.group_best, lambda: total.put(0, let(total.at(0) + choice.at(at))))

        with serial(size) as i:
            add(i)
        best.put(g, total.at(0))

    block.each(routing.groups, add_up)
    sync()
    block.each(routing.groups, lambda g: out.put(g, _better(best, g, i32(0), routing.groups)))
    sync()

    def leave_out(e: Expr) -> None:
        group = let(tirx.truncdiv(e, i32(size)))
        branch(out.at(group) >= routing.groups_used, lambda: choice.put(e, f32(_OUT)))

    block.each(routing.count, leave_out)
    sync()


def _choose(routing: Routing, block: Block, values: Span, choice: Span, chosen: Span, experts: Span, e: Expr) -> None:
    """Writes an expert to its place, if it has one."""
    place = _better(choice, e, i32(0), routing.count)

    def take() -> None:
        experts.put(let(block.x * routing.used + place), e)
        chosen.put(place, values.at(e))

    branch(place < routing.used, take)


def _better(values: Span, mine: Expr, first: Expr, count: int) -> Expr:
    """How many of `count` values from `first` on are larger than the one at `mine`, or as large and before it."""
    found, value = registers(1, "int32", i32(0)), values.at(mine)
    with serial(count) as i:
        at = let(first + i)
        other = values.at(at)
        wins = tirx.Or(other > value, tirx.And(let(tirx.Not(other < value)), at < mine))
        found.put(0, let(found.at(0) + select(wins, i32(1), i32(0))))
    return found.at(0)


def _weight(routing: Routing, chosen: Span, j: Expr) -> Expr:
    value = chosen.at(j)
    if routing.renormalised:
        total = registers(1, fill=zero())
        with serial(routing.used) as i:
            total.put(0, let(total.at(0) + chosen.at(i)))
        value = let(value / total.at(0))
    return value if routing.scale == 1 else let(value * f32(routing.scale))


def sort_pairs(count: int) -> tirx.PrimFunc:
    """(experts int32[pairs]) -> pairs in the order of experts int32[pairs], where each expert's begin int32[count + 1].

    A block of threads has an expert, each thread some neighbouring pairs: it counts those of earlier experts, which say
    where this one begins, and its own, which say where its threads' begin.
    """
    pairs, threads = size_var("pairs"), 256

    def body(experts: Span, order: Span, begins: Span) -> None:
        mine = ceildiv(pairs, threads)
        with launch(threads, count) as block:
            expert, scratch = block.x, shared(threads, "int32")
            start = let(tirx.min(block.thread * mine, pairs))
            end = let(tirx.min(start + mine, pairs))
            found = registers(2, "int32", i32(0))  # of earlier experts, and of this one
            with serial(end - start) as i:
                other = experts.at(start + i)
                found.put(0, let(found.at(0) + select(let(other < expert), i32(1), i32(0))))
                found.put(1, let(found.at(1) + select(let(other.equal(expert)), i32(1), i32(0))))
            begin = block_sum(block, scratch, found.at(0))
            next_ = registers(1, "int32", let(begin + _before(block, scratch, found.at(1))))
            branch(block.thread < 1, lambda: begins.put(expert, begin))
            branch(let(tirx.And(block.thread < 1, expert.equal(i32(count - 1)))), lambda: begins.put(count, pairs))

            def take(pair: Expr) -> None:
                order.put(next_.at(0), pair)
                next_.put(0, let(next_.at(0) + 1))

            with serial(end - start) as i:
                branch(let(experts.at(start + i).equal(expert)), lambda: take(let(start + i)))

    ints = Arg((pairs,), "int32")
    return kernel("sort_pairs", {"experts": ints, "order": ints, "begins": Arg((count + 1,), "int32")}, body)


def _before(block: Block, scratch: Span, value: Expr) -> Expr:
    """The sum of the values of all earlier threads (Hillis and Steele, 1986); their number is a power of two."""
    scratch.put(block.thread, value)
    sync()
    step = 1
    while step < block.threads:
        there = let(block.thread >= step)
        left = select(there, scratch.at(let(tirx.max(block.thread - step, i32(0)))), i32(0))
        sync()
        scratch.put(block.thread, let(scratch.at(block.thread) + left))
        sync()
        step *= 2
    return let(scratch.at(block.thread) - value)


@dataclass(frozen=True)
class Combine:
    """Sums of what a row's experts gave.

    Args:
        used: experts of a row.
        dtype: of what they gave.
        shared: type of what the shared network gave; None: it has no gate, or there is none.
    """

    width: int
    used: int
    dtype: str
    shared: str | None
    scale: float
    residual: bool


def combine(spec: Combine) -> tirx.PrimFunc:
    """(y[pairs, width], weights, shared[n, width] if any, residual float32[n, width] if any) -> float32[n, width]."""
    n, pairs, threads = size_var("n"), size_var("pairs"), 128
    weights_a_row = spec.used + (spec.shared is not None)

    def body(y: Span, weights: Span, z: Span, beside: Span | None = None, residual: Span | None = None) -> None:
        with launch(threads, n) as block:
            first = let(block.x * weights_a_row)

            def one(k: Expr) -> None:
                total = zero()
                for j in range(spec.used):
                    value = read(y, let((block.x * spec.used + j) * spec.width + k))
                    total = madd(weights.at(first + j), value, total)
                at = let(block.x * spec.width + k)
                if beside is not None:
                    total = madd(weights.at(first + spec.used), read(beside, at), total)
                if spec.scale != 1:
                    total = let(total * f32(spec.scale))
                z.put(at, total if residual is None else let(residual.at(at) + total))

            block.each(spec.width, one)

    rows = Arg((n, spec.width), "float32")
    args = {
        "y": Arg((pairs, spec.width), spec.dtype),
        "weights": Arg((n, weights_a_row), "float32"),
        **({"beside": Arg((n, spec.width), spec.shared)} if spec.shared else {}),
        **({"residual": rows} if spec.residual else {}),
        "z": rows,
    }
    return kernel("combine_experts", args, body)
