"""What attention computes with: its specification, the arguments of one call, and the queries of one task.

It says who sees what, and where things lie; the arithmetic is in `attention_block.py` and `attention_products.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from tvm import tirx

from cupola.kernels.cpu.emit import Expr, Index, Span, cast, i64, let
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.pages import HeadShape, PageLayout

BLOCK = 128  # tokens; a multiple of every page size
WIDE = 16  # tokens whose weights are computed together, whatever the width of vectors: it is the order of their sum
TILE_QUERIES = 24  # rows times grouped heads that walk together


@dataclass(frozen=True)
class AttentionSpec:
    """One attention: its heads and pages, and what a model changes about it.

    Args:
        window: tokens that a row sees, itself the last of them; 0: all before it.
        soft_cap: scores become soft_cap * tanh(score / soft_cap); 0: they stay (Gemma 2, 2024).
        sinks: every query head has a learned logit that takes its share of the softmax and has no value
            (gpt-oss, 2025).
    """

    heads: HeadShape
    pages: PageLayout
    window: int = 0
    soft_cap: float = 0.0
    sinks: bool = False

    @property
    def tile_rows(self) -> int:
        """Rows of one sequence that walk through the context together."""
        return max(1, min(8, TILE_QUERIES // self.heads.group))

    @property
    def block_pages(self) -> int:
        return BLOCK // self.pages.page_size


@dataclass(frozen=True)
class Context:
    """Queries and the pages that they meet; page i of a sequence is `page(first_page + i)`.

    As it stands, there is one sequence, whose pages lie one after the other.
    """

    spec: AttentionSpec
    isa: Isa
    q: Span
    pages: Span

    def first_page(self, s: Expr) -> Expr:  # noqa: ARG002
        return i64(0)

    def page(self, index: Expr) -> Expr:
        return index

    def page_to_come(self, index: Expr) -> Expr:
        """A page to prefetch."""
        return index


@dataclass(frozen=True)
class Step(Context):
    """The arguments of one call, and what is read from them.

    Args:
        begin: starts a task of some queries; the second argument is as in `attention_block.Task`.
    """

    begin: Begin
    rows: Expr
    sequences: Expr
    page_count: Expr
    q_indptr: Span
    page_indptr: Span
    page_ids: Span
    kv_len: Span
    y: Span
    o: Span
    ml: Span
    sinks: Span | None = None

    def sink(self, head: Expr) -> Expr | None:
        """The logit of a head that has no value."""
        return None if self.sinks is None else self.sinks.at(head)

    def first_row(self, s: Expr) -> Expr:
        return cast(self.q_indptr.at(s), "int64")

    def first_page(self, s: Expr) -> Expr:
        return cast(self.page_indptr.at(s), "int64")

    def length(self, s: Expr) -> Expr:
        return cast(self.kv_len.at(s), "int64")

    def page(self, index: Expr) -> Expr:
        return cast(self.page_ids.at(index), "int64")

    def page_to_come(self, index: Expr) -> Expr:
        """A page to prefetch: `index` may lie past the last one."""
        return self.page(let(tirx.min(index, self.page_count - 1)))


@dataclass(frozen=True)
class Queries:
    """Some rows of one sequence with the query heads of one key-value head.

    Query j is row `first_row + j / group` and head `key_head * group + j % group`.
    """

    step: Context
    sequence: Expr
    key_head: Expr
    first_row: Expr
    count: int  # rows
    first_seen: Expr  # tokens up to the first row's own, this one included; each later row has one more

    @property
    def size(self) -> int:
        return self.count * self.step.spec.heads.group

    def row_of(self, query: Expr) -> Expr:
        return let(tirx.floordiv(query, self.step.spec.heads.group))

    def head_of(self, query: Expr) -> Expr:
        group = self.step.spec.heads.group
        return let(self.key_head * group + tirx.floormod(query, group))

    def offset(self, query: Expr) -> Expr:
        """Where the query's D values begin in q and y."""
        heads = self.step.spec.heads
        return let(((self.first_row + self.row_of(query)) * heads.queries + self.head_of(query)) * heads.dim)

    def seen(self, row: Index, block: Expr) -> tuple[Expr, Expr]:
        """The tokens of a block that a row sees: from one, up to the other."""
        stop = let(self.first_seen + row - block * BLOCK)
        window = self.step.spec.window
        start = within_block(stop - window) if window else i64(0)
        return start, within_block(stop)

    @property
    def blocks(self) -> tuple[Expr, Expr]:
        """The blocks of which some row sees something: from one, up to the other."""
        window = self.step.spec.window
        first = let(tirx.floordiv(tirx.max(i64(0), self.first_seen - window), BLOCK)) if window else i64(0)
        return first, let(tirx.floordiv(self.first_seen + (self.count - 1 + BLOCK - 1), BLOCK))

    @property
    def adjusts(self) -> bool:
        """`adjusted` changes scores."""
        return False

    def adjusted(self, query: Expr, token: Expr, scores: Expr) -> Expr:  # noqa: ARG002
        """The scores of a query with neighbouring tokens, before they are capped and masked; `token` is the first."""
        return scores

    def reach(self, block: Expr) -> Reach:
        """The pages of a block that some row sees."""
        spec, size = self.step.spec, self.step.spec.pages.page_size
        start, _ = self.seen(0, block)
        _, stop = self.seen(self.count - 1, block)
        first_page = let(self.step.first_page(self.sequence) + block * spec.block_pages)
        end = let(tirx.floordiv(stop + (size - 1), size))
        return Reach(first_page, let(tirx.floordiv(start, size)), end, stop)


@dataclass(frozen=True)
class Reach:
    """The pages of a block that some query sees, counted within the block, and the first token past them."""

    first_page: Expr  # of the block, in page_ids
    begin: Expr
    end: Expr
    stop: Expr


@dataclass(frozen=True)
class Part:
    """Partial results of some queries: o[query, D] and (m, l)[query]."""

    o: Span
    ml: Span


@dataclass(frozen=True)
class Coming:
    """A block whose keys are to be prefetched: its first page, in page_ids, and its head."""

    first_page: Expr
    head: Expr


class BlockTask(Protocol):
    """Some queries that meet one block of the context after the other."""

    @property
    def part(self) -> Part:
        """What a block comes to."""

    def attend(self, block: Expr) -> None:
        """Leaves the partial results of one block in `part`."""


Following: TypeAlias = Callable[[Expr], Coming] | None  # block -> the pages that will be read after it
Begin: TypeAlias = Callable[[Queries, Following], BlockTask]


def within_block(token: Expr) -> Expr:
    """A token's place in a block, or the nearest end of the block."""
    return let(tirx.max(i64(0), tirx.min(i64(BLOCK), token)))
