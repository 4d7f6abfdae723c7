"""The two kinds of arithmetic of attention: products of floats, and products of integers with scales.

Float pages are multiplied as float32. Scaled pages hold integers, and for them queries and weights become 16-bit
integers too: one instruction multiplies pairs of neighbours and adds them up, twice the rate of float products (AVX2:
1.6 times). No sum leaves 32 bits:

    scores   |q . k| <= |q| |k|, and both norms are at most NORM (int8 keys: at most 127 * sqrt(D))
    values   |sum of w v| <= sum of w * max|v|, and the weights of a block are scaled so that their sum allows it

Integer sums are exact, so that no order of them and no instruction set shows in a result. What is lost is what rounding
to codes loses: with 16-bit pages as much as storing a key or value in float16 does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from tvm import tirx

from cupola.kernels.cpu.attention_step import BLOCK, WIDE, Queries, Reach
from cupola.kernels.cpu.emit import (
    LANES,
    Expr,
    Index,
    Span,
    bits,
    branch,
    cast,
    f32,
    fma,
    i32,
    lanes_of,
    let,
    max_lanes,
    registers,
    rounded16,
    scratch,
    select,
    serial,
    splat,
    sum_lanes,
)
from cupola.kernels.cpu.pages import NORM, euclidean_norm

LARGEST_WEIGHT = 32767
SMALLEST = 1e-30  # keeps the inverse of a block's unit finite when all weights are 0

EachStep: TypeAlias = Callable[[Expr, Expr, Expr, Expr], None]


class Products(Protocol):
    """The sums of products that attention needs, for the queries of one task.

    Operands come in steps: of one component or token (floats), or of two neighbours (integers).
    """

    def begin(self) -> None:
        """Reads the queries; once a task."""

    def begin_weights(self, reach: Reach) -> None:
        """Reads what belongs to the values of a block."""

    def sums(self, count: int) -> Span:
        """Vectors of running sums, all 0."""

    def add(self, total: Expr, left: Expr, right: Expr) -> Expr:
        """total + left * right."""

    def query_at(self, j: Expr) -> Expr:
        """Where query j begins."""

    def query(self, at: Expr) -> Expr:
        """One step of a query's components, in all lanes; `at` counts steps."""

    def scores(self, total: Expr, j: Expr, key_scales: Expr | None) -> Expr:
        """Scores of query j with eight tokens, out of their sums."""

    def weigh(self, j: Expr, begin: Expr, end: Expr, weight_of: Callable[[Expr], Expr]) -> None:
        """Keeps the weights of query j; weight_of(v) gives those of the WIDE tokens from v * WIDE on."""

    def weight(self, at: Expr) -> Expr:
        """One step of weights, in all lanes; `at` counts steps, query j's first is at j * BLOCK / depth."""

    def values(self, total: Expr, j: Expr) -> Expr:
        """Eight components of the weighted sum of query j, out of their sums."""

    def for_steps(self, reach: Reach, body: EachStep) -> None:
        """Calls body(page, its values, step within it, step within the block) for the tokens in reach."""


@dataclass(frozen=True)
class FloatProducts:
    """Products in float32."""

    queries: Queries
    weights: Span  # float32 [queries, BLOCK]

    def begin(self) -> None:
        return

    def begin_weights(self, reach: Reach) -> None:  # noqa: ARG002
        return

    def sums(self, count: int) -> Span:
        return registers(count, fill=splat(f32(0.0)))

    def add(self, total: Expr, left: Expr, right: Expr) -> Expr:
        return fma(left, right, total)

    def query_at(self, j: Expr) -> Expr:
        return self.queries.offset(j)

    def query(self, at: Expr) -> Expr:
        return splat(self.queries.step.q.at(at))

    def scores(self, total: Expr, j: Expr, key_scales: Expr | None) -> Expr:  # noqa: ARG002
        return total

    def weigh(self, j: Expr, begin: Expr, end: Expr, weight_of: Callable[[Expr], Expr]) -> None:
        with serial(end, start=begin) as v:
            self.weights.store(j * BLOCK + v * WIDE, weight_of(v))

    def weight(self, at: Expr) -> Expr:
        return splat(self.weights.at(at))

    def values(self, total: Expr, j: Expr) -> Expr:  # noqa: ARG002
        return total

    def for_steps(self, reach: Reach, body: EachStep) -> None:
        """Exactly the tokens in reach: what lies behind them need not be a number."""
        step, layout = self.queries.step, self.queries.step.spec.pages
        size = layout.page_size

        def page(index: Expr, tokens: Index) -> None:
            values = layout.values(step.page(let(reach.first_page + index)), self.queries.key_head)
            with serial(tokens) as t:
                body(index, values, t, let(index * size + t))

        full = let(tirx.floordiv(reach.stop, size))
        with serial(full, start=reach.begin) as index:
            page(index, size)
        branch(let(full < reach.end), lambda: page(full, let(reach.stop - full * size)))


@dataclass(frozen=True)
class IntegerProducts:
    """Products of 16-bit integers, two at a time."""

    queries: Queries
    weights: Span  # float32 [queries, BLOCK], before they are codes
    codes: Span  # int32 [queries, BLOCK / 2], pairs of codes of weights
    units: Span  # float32 [queries], what a code of the weights is worth
    query_codes: Span  # int32 [queries, D / 2], pairs
    query_scales: Span  # float32 [queries]
    value_scales: Span  # float32 [BLOCK]

    @staticmethod
    def of(queries: Queries, weights: Span) -> IntegerProducts:
        """With working memory of its own."""
        size, dim = queries.size, queries.step.spec.heads.dim
        codes = scratch(size * BLOCK // 2, "int32")
        memory = scratch(size), scratch(size * dim // 2, "int32"), scratch(size), scratch(BLOCK)
        return IntegerProducts(queries, weights, codes, *memory)

    def begin(self) -> None:
        """Codes of the queries, of norm NORM; numbers for the scales of values."""
        q, dim = self.queries.step.q, self.queries.step.spec.heads.dim
        with serial(self.queries.size) as j:
            at = self.queries.offset(j)
            norm = euclidean_norm(dim, lambda c: q.load(at + c))
            inverse = splat(select(norm > f32(0.0), let(f32(NORM) / norm), f32(0.0)))
            self.query_scales.put(j, let(norm * f32(1.0 / NORM)))
            with serial(dim // LANES) as c:
                pairs = _pairs(q.load(at + c * LANES), inverse)
                self.query_codes.store(j * (dim // 2) + c * (LANES // 2), pairs)
        if self.queries.step.spec.pages.page_size < WIDE:  # weights of 0 then meet tokens of no page in reach
            with serial(BLOCK // LANES) as c:
                self.value_scales.store(c * LANES, splat(f32(0.0)))

    def begin_weights(self, reach: Reach) -> None:
        """The scales of the values, 0 where there is no token."""
        step, layout = self.queries.step, self.queries.step.spec.pages
        with serial(reach.end, start=reach.begin) as index:
            page = step.page(let(reach.first_page + index))
            for token in range(0, layout.page_size, LANES):
                at = let(index * layout.page_size + token)
                lane = let(tirx.Ramp(i32(0), i32(1), LANES) + splat(cast(at, "int32")))
                scales = layout.value_scales(step.pages, page, self.queries.key_head, token)
                there = lane < splat(cast(reach.stop, "int32"))
                self.value_scales.store(at, select(there, scales, splat(f32(0.0))))

    def sums(self, count: int) -> Span:
        return registers(count, "int32x8", fill=splat(i32(0)))

    def add(self, total: Expr, left: Expr, right: Expr) -> Expr:
        return self.queries.step.isa.add_dot2(total, left, right)

    def query_at(self, j: Expr) -> Expr:
        return let(j * (self.queries.step.spec.heads.dim // 2))

    def query(self, at: Expr) -> Expr:
        return bits(splat(self.query_codes.at(at)), "int16x16")

    def scores(self, total: Expr, j: Expr, key_scales: Expr | None) -> Expr:
        scaled = let(cast(total, "float32x8") * key_scales)
        return let(scaled * splat(self.query_scales.at(j)))

    def weigh(self, j: Expr, begin: Expr, end: Expr, weight_of: Callable[[Expr], Expr]) -> None:
        """Moves the scales of the values into the weights, which are fewer, and makes codes of them."""
        base, nothing = let(j * BLOCK), splat(f32(0.0), WIDE)
        largest, total = (registers(1, f"float32x{WIDE}", fill=nothing) for _ in range(2))
        with serial(end, start=begin) as v:
            weight, scale = weight_of(v), self.value_scales.load(v * WIDE, WIDE)
            scaled = let(weight * scale)
            self.weights.store(base + v * WIDE, scaled)
            largest.put(0, let(tirx.max(largest.get(0), scaled)))
            total.put(0, fma(weight, scale, total.get(0)))
        unit = let(tirx.max(max_lanes(let(largest.get(0))) * f32(1.0 / LARGEST_WEIGHT), f32(SMALLEST)))
        most = self.queries.step.spec.pages.most_weight
        if most < BLOCK * LARGEST_WEIGHT:
            unit = let(tirx.max(unit, let(sum_lanes(let(total.get(0))) * f32(1.0 / most))))
        self.units.put(j, unit)
        inverse = splat(let(f32(1.0) / unit), WIDE)
        with serial(end, start=begin) as v:
            at = let(base + v * WIDE)
            self.codes.store(tirx.truncdiv(at, 2), _pairs(self.weights.load(at, WIDE), inverse))

    def weight(self, at: Expr) -> Expr:
        return bits(splat(self.codes.at(at)), "int16x16")

    def values(self, total: Expr, j: Expr) -> Expr:
        return let(cast(total, "float32x8") * splat(self.units.at(j)))

    def for_steps(self, reach: Reach, body: EachStep) -> None:
        """Whole pages: what lies behind the tokens in reach has the weight 0."""
        step, layout = self.queries.step, self.queries.step.spec.pages
        steps = layout.page_size // layout.depth
        with serial(reach.end, start=reach.begin) as index:
            values = layout.values(step.page(let(reach.first_page + index)), self.queries.key_head)
            with serial(steps) as t:
                body(index, values, t, let(index * steps + t))


def products(queries: Queries, scores: Span) -> Products:
    """What fits the pages; weights take the place of the scores."""
    if queries.step.spec.pages.scaled:
        return IntegerProducts.of(queries, scores)
    return FloatProducts(queries, scores)


def _pairs(value: Expr, factor: Expr) -> Expr:
    """value * factor as nearest 16-bit integers, two to an int32."""
    return bits(rounded16(value, factor), f"int32x{lanes_of(value) // 2}")
