"""Routing of rows to experts: which experts a row uses and how much each counts, and the pairs of each expert.

A pair is a row and one of its experts; row i and its j-th expert are pair i * used + j. Sorted by expert (a counting
sort: within an expert, pairs stay in their order), they are what the products of experts walk over.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
    Index,
    Span,
    branch,
    cast,
    exp,
    f32,
    i32,
    i64,
    kernel,
    let,
    max_lanes,
    parallel,
    region,
    registers,
    scratch,
    select,
    serial,
    shuffle,
    size_var,
    splat,
    sum_lanes,
)
from cupola.kernels.routing import Routing

TAKEN = -3.4028234663852886e38  # what stands for an expert that cannot be chosen any more: the lowest float32
_TINY = 1e-20  # what weights are divided by at least


@dataclass(frozen=True)
class RouteSpec:
    """A routing, and how its arguments lie.

    Args:
        stride: scores of a row, with what fills them up.
        biased: there is a selection bias.
    """

    routing: Routing
    stride: int
    biased: bool = False

    @property
    def weights(self) -> int:
        """Weights of a row."""
        return self.routing.used + self.routing.shared_gate


def route(spec: RouteSpec) -> tirx.PrimFunc:
    """(scores[n, stride], bias[count] if biased) -> (weights, chosen, order, begins, busy).

    weights: float32[n, used (+ 1)]; chosen: int32[n, used], the experts of each row; order: int32[n * used], pairs
    sorted by expert; begins: int32[count + 1], pairs of expert e are order[begins[e]] to order[begins[e + 1]]; busy:
    int32[count + 1], the experts in use, in order, and how many they are as the last element.
    """
    n, pairs = size_var("n"), size_var("pairs")
    routing = spec.routing
    args = {"scores": Arg((n, spec.stride), "float32")}
    if spec.biased:
        args["bias"] = Arg((routing.count,), "float32")
    args |= {
        "weights": Arg((n, spec.weights), "float32"),
        "chosen": Arg((n, routing.used), "int32"),
        "order": Arg((pairs,), "int32"),
        "begins": Arg((routing.count + 1,), "int32"),
        "busy": Arg((routing.count + 1,), "int32"),
    }

    def body(
        scores: Span,
        weights: Span,
        chosen: Span,
        order: Span,
        begins: Span,
        busy: Span,
        bias: Span | None = None,
    ) -> None:
        with region():
            with parallel(n) as row:
                _choose(spec, scores, bias, weights, chosen, row)
            with parallel(1):
                _sort(routing, n, chosen, order, begins, busy)

    return kernel("route", args, body)


# One row


def _choose(spec: RouteSpec, scores: Span, bias: Span | None, weights: Span, chosen: Span, row: Expr) -> None:
    routing, count = spec.routing, spec.routing.count
    padded = -(-count // LANES) * LANES
    values, keys = scratch(padded), scratch(padded)
    base = let(row * spec.stride)
    total = _values(routing, scores, base, values, keys)
    if bias is not None:
        with serial(count) as expert:
            keys.put(expert, let(let(values.at(expert) / total) + bias.at(expert)))
    elif routing.group_best > 1:  # else scores and values choose alike
        with serial(count) as expert:
            keys.put(expert, values.at(expert))
    if routing.groups > 1:
        _leave_groups(routing, keys)
    used = registers(1, "float32", f32(0.0))
    with serial(routing.used) as j:
        expert = _largest(keys, 0, count)
        keys.put(expert, f32(TAKEN))
        value = values.at(expert)
        used.put(0, let(used.get(0) + value))
        chosen.put(row * routing.used + j, cast(expert, "int32"))
        weights.put(row * spec.weights + j, value)
    divisor = let(tirx.max(used.get(0), f32(_TINY))) if routing.renormalised else total
    factor = let(f32(routing.scale) / divisor)
    with serial(routing.used) as j:
        at = let(row * spec.weights + j)
        weights.put(at, let(weights.at(at) * factor))
    if routing.shared_gate:
        gate = _sigmoid(splat(scores.at(base + count)))
        weights.put(row * spec.weights + routing.used, shuffle(gate, [0]))


def _values(routing: Routing, scores: Span, base: Expr, values: Span, keys: Span) -> Expr:
    """Fills in a row's values, up to a common divisor that it returns, and its scores as the keys of the choice."""
    vectors = -(-routing.count // LANES)
    largest = registers(1, fill=splat(f32(TAKEN)))
    with serial(vectors) as j:
        at = let(j * LANES)
        lanes = let(tirx.Ramp(at, i64(1), LANES))
        known = select(lanes < splat(i64(routing.count)), scores.load(base + at), splat(f32(TAKEN)))
        keys.store(at, known)
        largest.put(0, let(tirx.max(largest.get(0), known)))
    if routing.function == "sigmoid":
        with serial(vectors) as j:
            values.store(j * LANES, _sigmoid(keys.load(j * LANES)))
        return let(f32(1.0))
    top = splat(max_lanes(let(largest.get(0))))
    sums = registers(1, fill=splat(f32(0.0)))
    with serial(vectors) as j:
        value = exp(let(keys.load(j * LANES) - top))
        values.store(j * LANES, value)
        sums.put(0, let(sums.get(0) + value))
    return sum_lanes(let(sums.get(0)))


def _leave_groups(routing: Routing, keys: Span) -> None:
    """Takes away the experts of all groups but the best."""
    groups, size = routing.groups, routing.count // routing.groups
    spare, best, left = scratch(routing.count), scratch(groups), scratch(groups, "int32")
    with serial(routing.count) as expert:
        spare.put(expert, keys.at(expert))
    with serial(groups) as group:
        left.put(group, i32(0))
        best.put(group, f32(0.0))
        for _ in range(routing.group_best):
            expert = _largest(spare, let(group * size), size)
            best.put(group, let(best.at(group) + spare.at(expert)))
            spare.put(expert, f32(TAKEN))
    with serial(routing.groups_used):
        group = _largest(best, 0, groups)
        best.put(group, f32(TAKEN))
        left.put(group, i32(1))
    with serial(routing.count) as expert:
        branch(left.at(tirx.floordiv(expert, size)) < 1, lambda: keys.put(expert, f32(TAKEN)))


def _largest(keys: Span, first: Index, count: int) -> Expr:
    """The index of the largest of `count` keys from `first` on, the first of equals; numbers that are none lose."""
    best, index = registers(1, "float32", f32(TAKEN)), registers(1, "int64", let(i64(0) + first))
    with serial(count) as i:
        at = let(i + first)
        key = keys.at(at)
        better = let(key > best.get(0))
        index.put(0, tirx.Select(better, at, index.get(0)))
        best.put(0, tirx.Select(better, key, best.get(0)))
    return let(index.get(0))


def _sigmoid(x: Expr) -> Expr:
    one = splat(f32(1.0))
    return let(one / let(one + exp(let(-x))))


# All rows


def _sort(routing: Routing, n: Expr, chosen: Span, order: Span, begins: Span, busy: Span) -> None:
    count, pairs = routing.count, let(n * routing.used)
    free = scratch(count, "int32")  # per expert: how many pairs, later where its next one goes
    with serial(count) as expert:
        free.put(expert, i32(0))
    with serial(pairs) as pair:
        expert = cast(chosen.at(pair), "int64")
        free.put(expert, let(free.at(expert) + 1))
    begin, in_use = registers(1, "int32", i32(0)), registers(1, "int32", i32(0))
    with serial(count) as expert:
        here = free.at(expert)
        begins.put(expert, begin.get(0))
        free.put(expert, begin.get(0))
        begin.put(0, let(begin.get(0) + here))

        def use(expert: Expr = expert) -> None:
            busy.put(let(cast(in_use.get(0), "int64")), cast(expert, "int32"))
            in_use.put(0, let(in_use.get(0) + 1))

        branch(here > 0, use)
    begins.put(count, begin.get(0))
    busy.put(count, in_use.get(0))
    with serial(pairs) as pair:
        expert = cast(chosen.at(pair), "int64")
        at = free.at(expert)
        order.put(cast(at, "int64"), cast(pair, "int32"))
        free.put(expert, let(at + 1))
