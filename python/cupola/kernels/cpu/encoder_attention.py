"""Attention of encoders: every token sees its whole sequence, which is at hand, so that there are no pages to keep.

A task is one head of one sequence. It lays keys and values out as the decoder's pages are, in memory of its own that
stays in the cache, and walks over its rows in tiles. The arithmetic is that of `attention_block.py`; a row's result
depends on its own sequence only, to the bit.

Biases of the projections are added here, because here is where q, k and v are read; and here q and k rotate, where a
model has rotary positions, or scores get what a learned table says of the distance of two tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.activation import Load
from cupola.kernels.cpu.attention_block import Task, part_of
from cupola.kernels.cpu.attention_merge import begin, finish, merge
from cupola.kernels.cpu.attention_step import BLOCK, WIDE, AttentionSpec, Context, Queries, within_block
from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
    Index,
    Span,
    cast,
    f32,
    i64,
    kernel,
    let,
    parallel,
    region,
    scratch,
    serial,
    size_var,
    splat,
)
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.pages import HeadShape, PageLayout
from cupola.kernels.cpu.position import rotate

PAGE = 16  # tokens that lie together; of no meaning beyond this file
ROWS = 8  # of a tile


@dataclass(frozen=True)
class EncoderAttentionSpec:
    """Attention in both directions.

    Args:
        heads, dim: each head has queries, keys and values of its own, of this many components.
        max_tokens: of one sequence.
        dtype: in what keys and values are multiplied: float32, or int16 with scales (see `pages.py`).
        biased: the projections lack their bias.
        rotary_dim: leading components of a head that are rotated.
        window: tokens that a row sees to each side of itself; 0: all of them.
        buckets: rows of a table of numbers that are added to scores; 0: there is none.
    """

    heads: int
    dim: int
    max_tokens: int
    dtype: str
    biased: bool = True
    rotary_dim: int = 0
    window: int = 0
    buckets: int = 0

    @property
    def width(self) -> int:
        """All heads side by side."""
        return self.heads * self.dim


def encoder_attention(spec: EncoderAttentionSpec, isa: Isa) -> tirx.PrimFunc:
    """(qkv float32[n, 3 H D], q_indptr int32[b + 1], and what there is of the following) -> y float32[n, H D].

    bias float32[3 H D]; table float32[n, 2, rotary_dim / 2], of `rotary_table`; bucket_of int32[2 max_tokens - 1], a
    bucket for each distance from 1 - max_tokens on, and added float32[buckets, H].
    """
    n, b1 = size_var("n"), size_var("b1")
    args = {"qkv": Arg((n, 3 * spec.width), "float32"), "q_indptr": Arg((b1,), "int32")}
    if spec.biased:
        args["bias"] = Arg((3 * spec.width,), "float32")
    if spec.rotary_dim:
        args["table"] = Arg((n, 2, spec.rotary_dim // 2), "float32")
    if spec.buckets:
        args["bucket_of"] = Arg((2 * spec.max_tokens - 1,), "int32")
        args["added"] = Arg((spec.buckets, spec.heads), "float32")
    args["y"] = Arg((n, spec.width), "float32")

    def body(
        qkv: Span,
        q_indptr: Span,
        y: Span,
        bias: Span | None = None,
        table: Span | None = None,
        bucket_of: Span | None = None,
        added: Span | None = None,
    ) -> None:
        source = _Projections(spec, qkv, bias, table)
        sequences = let(b1 - 1)
        with region(), parallel(sequences * spec.heads) as task:
            # Head by head, so that equal shares of tasks are equal shares of work whatever the sequences' lengths.
            head, s = let(tirx.truncdiv(task, sequences)), let(tirx.truncmod(task, sequences))
            first = cast(q_indptr.at(s), "int64")
            length = let(cast(q_indptr.at(s + 1), "int64") - first)
            _Head(spec, isa, source, y, head, first, length).attend(_distances(spec, length, head, bucket_of, added))

    return kernel("encoder_attention", args, body)


def _distances(
    spec: EncoderAttentionSpec, length: Expr, head: Expr, bucket_of: Span | None, added: Span | None
) -> Span | None:
    """What is added to a head's scores, for distances from 1 - length on; room behind it for whole vectors."""
    if bucket_of is None or added is None:
        return None
    distances = scratch(2 * spec.max_tokens + WIDE)
    with serial(let(2 * length - 1)) as i:
        bucket = cast(bucket_of.at(let(spec.max_tokens - length + i)), "int64")
        distances.put(i, added.at(let(bucket * spec.heads + head)))
    return distances


@dataclass(frozen=True)
class _Projections:
    """q, k and v of all rows, side by side, as they came out of the product."""

    spec: EncoderAttentionSpec
    qkv: Span
    bias: Span | None
    table: Span | None

    def of(self, part: int, head: Expr, token: Expr) -> Load:
        """The query (part 0), key (1) or value (2) of a head and row: its components by eights."""
        spec = self.spec
        column = let(part * spec.width + head * spec.dim)
        base = let(token * (3 * spec.width) + column)

        def plain(at: Expr) -> Expr:
            x = self.qkv.load(base + at)
            return x if self.bias is None else let(x + self.bias.load(column + at))

        if self.table is None or part == 2:
            return plain
        still, turned = scratch(spec.dim), scratch(spec.dim)
        with serial(spec.dim // LANES) as c:
            still.store(c * LANES, plain(let(c * LANES)))
        half = spec.rotary_dim // 2
        rotate(still, i64(0), self.table, let(token * (2 * half)), half, spec.dim, turned.store)
        return turned.load


@dataclass(frozen=True)
class _Whole(Queries):
    """The rows of a tile, in memory of their own; each sees the whole sequence, or a window around itself.

    Args:
        tokens: of the sequence.
        added: to scores, by distance; see `_distances`.
    """

    tokens: Expr
    added: Span | None

    def _token(self, row: Index) -> Expr:
        return let(tirx.min(self.first_row + row, self.tokens - 1))

    def seen(self, row: Index, block: Expr) -> tuple[Expr, Expr]:
        window, begin = self.step.spec.window, let(block * BLOCK)
        if not window:
            return i64(0), within_block(self.tokens - begin)
        token = self._token(row)
        stop = let(tirx.min(self.tokens, token + (window + 1)))
        return within_block(token - window - begin), within_block(stop - begin)

    @property
    def blocks(self) -> tuple[Expr, Expr]:
        window = self.step.spec.window
        if not window:
            return i64(0), let(tirx.truncdiv(self.tokens + (BLOCK - 1), BLOCK))
        first = let(tirx.truncdiv(tirx.max(i64(0), self.first_row - window), BLOCK))
        stop = let(tirx.min(self.tokens, self._token(self.count - 1) + (window + 1)))
        return first, let(tirx.truncdiv(stop + (BLOCK - 1), BLOCK))

    @property
    def adjusts(self) -> bool:
        return self.added is not None

    def adjusted(self, query: Expr, token: Expr, scores: Expr) -> Expr:
        if self.added is None:
            return scores
        return let(scores + self.added.load(let(token - self._token(query) + self.tokens - 1), WIDE))

    def offset(self, query: Expr) -> Expr:
        return let(query * self.step.spec.heads.dim)


@dataclass(frozen=True)
class _Head:
    """One task: a head of a sequence of `length` rows from `first` on."""

    spec: EncoderAttentionSpec
    isa: Isa
    source: _Projections
    y: Span
    head: Expr
    first: Expr
    length: Expr

    def attend(self, added: Span | None) -> None:
        layout = PageLayout(HeadShape(1, 1, self.spec.dim), PAGE, self.spec.dtype)
        pages = scratch(-(-self.spec.max_tokens // BLOCK) * (BLOCK // PAGE) * layout.elements, layout.dtype)
        with serial(self.length) as t:
            page, token = let(tirx.truncdiv(t, PAGE)), let(tirx.truncmod(t, PAGE))
            row = let(self.first + t)
            layout.write_key(pages, page, 0, token, self.source.of(1, self.head, row))
            layout.write_value(pages, page, 0, token, self.source.of(2, self.head, row))
        with serial(let(tirx.truncdiv(self.length + (ROWS - 1), ROWS))) as tile:
            self._tile(AttentionSpec(layout.heads, layout, self.spec.window), pages, let(tile * ROWS), added)

    def _tile(self, spec: AttentionSpec, pages: Span, row: Expr, added: Span | None) -> None:
        """ROWS rows from `row` on; those behind the sequence's end are computed as its last one, and dropped."""
        dim, scale = self.spec.dim, splat(f32(self.spec.dim**-0.5))
        q = scratch(ROWS * dim)
        with serial(ROWS) as j:
            query = self.source.of(0, self.head, let(self.first + tirx.min(row + j, self.length - 1)))
            with serial(dim // LANES) as c:
                q.store(j * dim + c * LANES, let(query(let(c * LANES)) * scale))
        context = Context(spec, self.isa, q, pages)
        queries = _Whole(context, i64(0), i64(0), row, ROWS, self.length, tokens=self.length, added=added)
        total, task = part_of(ROWS, dim), Task.of(queries)
        with serial(ROWS) as j:
            begin(dim, total, j)
        first, stop = queries.blocks
        with serial(stop, start=first) as block:
            task.attend(block)
            with serial(ROWS) as j:
                merge(dim, total, j, task.part, j)
        with serial(let(tirx.min(i64(ROWS), self.length - row))) as j:
            finish(dim, total, j, self.y, let((self.first + row + j) * self.spec.width + self.head * dim))
