"""Attention of encoders: every token sees its whole sequence, which is at hand, so that there are no pages to keep.

A task is one head of one sequence. It lays keys and values out as the decoder's pages are, in memory of its own that
stays in the cache, and walks over its rows in tiles. The arithmetic is that of `attention_block.py`; a row's result
depends on its own sequence only, to the bit.

Biases of the projections are added here, because here is where q, k and v are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.attention_block import Task, part_of
from cupola.kernels.cpu.attention_merge import begin, finish, merge
from cupola.kernels.cpu.attention_step import BLOCK, AttentionSpec, Context, Queries
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

PAGE = 16  # tokens that lie together; of no meaning beyond this file
ROWS = 8  # of a tile


@dataclass(frozen=True)
class EncoderAttentionSpec:
    """Attention without a mask.

    Args:
        heads, dim: each head has queries, keys and values of its own, of this many components.
        max_tokens: of one sequence.
        dtype: in what keys and values are multiplied: float32, or int16 with scales (see `pages.py`).
    """

    heads: int
    dim: int
    max_tokens: int
    dtype: str

    @property
    def width(self) -> int:
        """All heads side by side."""
        return self.heads * self.dim


def encoder_attention(spec: EncoderAttentionSpec, isa: Isa) -> tirx.PrimFunc:
    """(qkv float32[n, 3 H D] without biases, bias float32[3 H D], q_indptr int32[b + 1]) -> y float32[n, H D]."""
    n, b1 = size_var("n"), size_var("b1")
    args = {
        "qkv": Arg((n, 3 * spec.width), "float32"),
        "bias": Arg((3 * spec.width,), "float32"),
        "q_indptr": Arg((b1,), "int32"),
        "y": Arg((n, spec.width), "float32"),
    }

    def body(qkv: Span, bias: Span, q_indptr: Span, y: Span) -> None:
        sequences = let(b1 - 1)
        with region(), parallel(sequences * spec.heads) as task:
            # Head by head, so that equal shares of tasks are equal shares of work whatever the sequences' lengths.
            head, s = let(tirx.truncdiv(task, sequences)), let(tirx.truncmod(task, sequences))
            first = cast(q_indptr.at(s), "int64")
            length = let(cast(q_indptr.at(s + 1), "int64") - first)
            _Head(spec, isa, qkv, bias, y, head, first, length).attend()

    return kernel("encoder_attention", args, body)


@dataclass(frozen=True)
class _Whole(Queries):
    """The rows of a tile, each of which sees the whole sequence; they lie in memory of their own."""

    def seen(self, row: Index, block: Expr) -> tuple[Expr, Expr]:  # noqa: ARG002
        stop = let(tirx.max(i64(0), tirx.min(i64(BLOCK), self.first_seen - block * BLOCK)))
        return i64(0), stop

    @property
    def blocks(self) -> tuple[Expr, Expr]:
        return i64(0), let(tirx.truncdiv(self.first_seen + (BLOCK - 1), BLOCK))

    def offset(self, query: Expr) -> Expr:
        return let(query * self.step.spec.heads.dim)


@dataclass(frozen=True)
class _Head:
    """One task: a head of a sequence of `length` rows from `first` on."""

    spec: EncoderAttentionSpec
    isa: Isa
    qkv: Span
    bias: Span
    y: Span
    head: Expr
    first: Expr
    length: Expr

    def attend(self) -> None:
        layout = PageLayout(HeadShape(1, 1, self.spec.dim), PAGE, self.spec.dtype)
        pages = scratch(-(-self.spec.max_tokens // BLOCK) * (BLOCK // PAGE) * layout.elements, layout.dtype)
        with serial(self.length) as t:
            page, token = let(tirx.truncdiv(t, PAGE)), let(tirx.truncmod(t, PAGE))
            layout.write_key(pages, page, 0, token, lambda at: self._projected(1, t, at))
            layout.write_value(pages, page, 0, token, lambda at: self._projected(2, t, at))
        with serial(let(tirx.truncdiv(self.length + (ROWS - 1), ROWS))) as tile:
            self._tile(AttentionSpec(layout.heads, layout), pages, let(tile * ROWS))

    def _tile(self, spec: AttentionSpec, pages: Span, row: Expr) -> None:
        """ROWS rows from `row` on; those behind the sequence's end are computed as its last one, and dropped."""
        dim, scale = self.spec.dim, splat(f32(self.spec.dim**-0.5))
        q = scratch(ROWS * dim)
        with serial(ROWS) as j, serial(dim // LANES) as c:
            t = let(tirx.min(row + j, self.length - 1))
            q.store(j * dim + c * LANES, let(self._projected(0, t, let(c * LANES)) * scale))
        queries = _Whole(Context(spec, self.isa, q, pages), i64(0), i64(0), i64(0), ROWS, self.length)
        total, task = part_of(ROWS, dim), Task.of(queries)
        with serial(ROWS) as j:
            begin(dim, total, j)
        _, stop = queries.blocks
        with serial(stop) as block:
            task.attend(block)
            with serial(ROWS) as j:
                merge(dim, total, j, task.part, j)
        with serial(let(tirx.min(i64(ROWS), self.length - row))) as j:
            finish(dim, total, j, self.y, let((self.first + row + j) * self.spec.width + self.head * dim))

    def _projected(self, part: int, token: Expr, at: Expr) -> Expr:
        """Eight components of a token's query (part 0), key (1) or value (2), with their biases."""
        column = let(part * self.spec.width + self.head * self.spec.dim + at)
        return let(self.qkv.load((self.first + token) * (3 * self.spec.width) + column) + self.bias.load(column))
