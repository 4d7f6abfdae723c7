"""Attention over pages of latents: the roads of `attention.py`, with queries of two parts and one row a token.

A token's row is key and value at once, and lies as it was written, so that a score is a sum over neighbours: a vector
of partial sums for each query and token, and one sum over its lanes at the end. With hundreds of components the latter
costs little, and pages need to hold nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.attention import paged_attention
from cupola.kernels.cpu.attention_block import Task, add_products, in_chunks, part_of
from cupola.kernels.cpu.attention_products import FloatProducts
from cupola.kernels.cpu.attention_step import BLOCK, WIDE, AttentionSpec, Following, Queries, Reach, Step
from cupola.kernels.cpu.emit import (
    LANES,
    Expr,
    Span,
    f32,
    fma,
    i32,
    lanes_of,
    let,
    registers,
    scratch,
    serial,
    splat,
)
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.latent_pages import LatentLayout

QUERIES_TOGETHER = 3  # in one tile of scores


def latent_attention(layout: LatentLayout, isa: Isa) -> tirx.PrimFunc:
    """(q, r, pages, q_indptr, page_indptr, page_ids, kv_len) -> y and partials, as `attention`.

    q float32[n, H * latent] and r float32[n, H * rotary] are scaled; y is float32[n, H * latent].
    """
    heads = layout.heads
    queries = {"q": heads.queries * heads.dim, "r": heads.queries * layout.rotary}

    def begin(queries: Queries, following: Following) -> LatentTask:
        return LatentTask.begin(queries, layout, following)

    return paged_attention("latent_attention", AttentionSpec(heads, layout), isa, queries, LatentStep, begin)


@dataclass(frozen=True, kw_only=True)
class LatentStep(Step):
    """The arguments of a call; r are the parts of queries that rotate."""

    r: Span


@dataclass(frozen=True)
class LatentProducts(FloatProducts):
    """Products in float32; weights take the scales of the latents upon them, where pages have such.

    Args:
        scales: float32 [BLOCK], of the latents of a block.
    """

    layout: LatentLayout
    scales: Span

    def begin_weights(self, reach: Reach) -> None:
        if not self.layout.scaled:
            return
        step, size = self.queries.step, self.layout.page_size
        with serial(reach.end, start=reach.begin) as index:
            page = step.page(let(reach.first_page + index))
            with serial(size) as token:
                self.scales.put(index * size + token, self.layout.latent_scale(step.pages, page, token))

    def weigh(self, j: Expr, begin: Expr, end: Expr, weight_of: Callable[[Expr], Expr]) -> None:
        if not self.layout.scaled:
            FloatProducts.weigh(self, j, begin, end, weight_of)
            return
        with serial(end, start=begin) as v:
            scaled = let(weight_of(v) * self.scales.load(v * WIDE, WIDE))
            self.weights.store(j * BLOCK + v * WIDE, scaled)


@dataclass(frozen=True)
class LatentTask(Task):
    """Some queries on their way through the context.

    Args:
        r: where their parts that rotate are read.
    """

    layout: LatentLayout
    r: Span

    @staticmethod
    def begin(queries: Queries, layout: LatentLayout, following: Following) -> LatentTask:
        """With memory of its own."""
        step = queries.step
        assert isinstance(step, LatentStep)
        scores = scratch(queries.size * BLOCK)
        products = LatentProducts(queries, scores, layout, scratch(BLOCK))
        part = part_of(queries.size, layout.heads.dim)
        return LatentTask(queries, products, scores, part, following, layout, step.r)

    def score(self, reach: Reach) -> None:
        """Every query with whole pages, a few tokens at a time."""
        step, size = self.queries.step, self.layout.page_size
        together = LANES if step.isa.registers >= 32 else LANES // 2
        with serial(reach.end, start=reach.begin) as index:
            page = step.page(let(reach.first_page + index))
            with serial(size // together) as part:
                tokens = [let(part * together + i) for i in range(together)]
                place = let(index * size + part * together)

                def some(first: Expr, count: int) -> None:
                    queries = [let(first + i) for i in range(count)]
                    for j, scores in zip(queries, self._scores(queries, page, tokens), strict=True):
                        self.scores.store(j * BLOCK + place, scores)

                in_chunks(self.queries.size, QUERIES_TOGETHER, some)

    def _scores(self, queries: Sequence[Expr], page: Expr, tokens: Sequence[Expr]) -> list[Expr]:
        """Of each query, its scores with some tokens of a page."""
        step, layout, count = self.queries.step, self.layout, len(tokens)
        latents = [let(layout.keys(page, 0) + token * layout.row) for token in tokens]
        keys = [let(latent + layout.heads.dim) for latent in latents]
        starts = [self.queries.offset(j) for j in queries]
        r_starts = [let(tirx.floordiv(start, layout.heads.dim) * layout.rotary) for start in starts]
        sums = registers(len(queries) * count, fill=splat(f32(0.0)))
        self._add_products(sums, step.q, starts, latents, layout.heads.dim)
        if not layout.scaled:
            self._add_products(sums, self.r, r_starts, keys, layout.rotary)
            totals = [let(sums.get(i)) for i in range(len(queries) * count)]
        else:
            scales = [splat(layout.latent_scale(step.pages, page, token)) for token in tokens]
            totals = [let(sums.get(i) * scales[i % count]) for i in range(len(queries) * count)]
            sums = registers(len(queries) * count, fill=splat(f32(0.0)))
            self._add_products(sums, self.r, r_starts, keys, layout.rotary)
            scales = [splat(layout.rotary_scale(step.pages, page, token)) for token in tokens]
            totals = [fma(sums.get(i), scales[i % count], total) for i, total in enumerate(totals)]
        return [sum_each(totals[i * count : (i + 1) * count]) for i in range(len(queries))]

    def _add_products(
        self, sums: Span, left: Span, starts: Sequence[Expr], rows: Sequence[Expr], components: int
    ) -> None:
        """Adds to sums[i, k] the products of the components of starts[i] in `left` and rows[k] in the pages."""
        pages = self.queries.step.pages
        with serial(components // LANES) as c:
            at = let(c * LANES)
            add_products(
                self.products,
                sums,
                lambda i: left.load(starts[i] + at),
                len(starts),
                lambda k: self.layout.load(pages, rows[k] + at),
                len(rows),
            )


def sum_each(vectors: Sequence[Expr]) -> Expr:
    """The sum over the lanes of each vector, as one vector: neighbours are added, then their sums, and so forth."""
    count = len(vectors)
    while len(vectors) > 1:
        vectors = [_neighbours(list(vectors[i : i + 2])) for i in range(0, len(vectors), 2)]
    (sums,) = vectors
    while lanes_of(sums) > count:
        sums = _neighbours([sums])
    return sums


def _neighbours(vectors: list[Expr]) -> Expr:
    """The sums of neighbouring lanes of one or two vectors, side by side."""
    lanes = sum(lanes_of(vector) for vector in vectors)
    even, odd = (let(tirx.Shuffle(vectors, [i32(i) for i in range(first, lanes, 2)])) for first in (0, 1))
    return let(even + odd)
