"""What the kernels of attention have to know, and how a context falls into parts that blocks of threads share.

A part is a multiple of the smallest one: the fewer there are, the less has to be merged, and there are enough for all
of the device to be at work. Where a step has few tokens of context, parts are smallest; where it has many, they grow,
so that all sequences and heads of it fall into about `BLOCKS` parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Index, Span, i32, let
from cupola.kernels.gpu.emit import ceildiv, last_beginning
from cupola.kernels.gpu.pages import GpuPages
from cupola.kernels.gpu.trait import Gpu

SPLIT_TOKENS = 128
BLOCKS = 1024  # parts times heads of a step: several for each multiprocessor of a large GPU


@dataclass(frozen=True)
class Attention:
    """The attention of one layer.

    Args:
        window, soft_cap: as in `Operations.attention`.
        dtype: of q and y.
        decode: every sequence has one row, always.
    """

    pages: GpuPages
    gpu: Gpu
    dtype: str
    window: int = 0
    soft_cap: float = 0.0
    sinks: bool = False
    decode: bool = False

    @property
    def split_tokens(self) -> int:
        """Of the smallest part."""
        return max(SPLIT_TOKENS, self.pages.page_size)

    @property
    def split_pages(self) -> int:
        return self.split_tokens // self.pages.page_size

    @property
    def most_parts(self) -> int:
        """Of a step, beside one for each sequence."""
        return -(-BLOCKS // self.pages.heads.keys)

    def slots(self, pages: Index, sequences: Index) -> Index:
        """Slots for partial results of a step with so many page ids.

        Sequences fall into as many parts as `most_parts` and one more each at most, and there are no more than smallest
        ones.
        """
        smallest = tirx.floordiv(pages + sequences * (self.split_pages - 1), self.split_pages)
        return tirx.min(smallest, sequences + self.most_parts)


@dataclass(frozen=True)
class Parts:
    """The parts of the sequences of one step, as a block of threads sees them.

    Args:
        pages: of a part.
    """

    spec: Attention
    arguments: dict[str, Span]
    pages: Expr

    @classmethod
    def of(cls, spec: Attention, arguments: dict[str, Span], sequences: Expr) -> Parts:
        """By what the sequences really have: there may be more page ids than they use."""
        smallest = spec.split_pages
        times = ceildiv(let(arguments["page_indptr"].at(sequences)), spec.most_parts * smallest)
        return cls(spec, arguments, let(tirx.max(times, i32(1)) * smallest))

    @property
    def tokens(self) -> Expr:
        """Of a part."""
        return let(self.pages * self.spec.pages.page_size)

    def first_slot(self, s: Expr) -> Expr:
        """Of a sequence."""
        begin = self.arguments["page_indptr"].at(s)
        return let(tirx.truncdiv(begin + s * (self.pages - 1), self.pages))

    def sequence(self, slot: Expr, sequences: Expr) -> Expr:
        """The sequence whose slot it may be."""
        return last_beginning(slot, sequences, self.first_slot)

    def seen(self, s: Expr) -> tuple[Expr, Expr]:
        """The parts of a sequence of which its last row sees something: from one, up to the other."""
        count, window = self.arguments["kv_len"].at(s), self.spec.window
        stop = let(tirx.truncdiv(count + (self.tokens - 1), self.tokens))
        first = let(tirx.truncdiv(tirx.max(count - window, i32(0)), self.tokens)) if window else i32(0)
        return first, stop


def has_one_row(arguments: dict[str, Span], s: Expr) -> Expr:
    """Whether a sequence decodes: such rows share their context among blocks, others walk through it in tiles."""
    q_indptr = arguments["q_indptr"]
    return let(q_indptr.at(s + 1) - q_indptr.at(s) == 1)


Sink = Callable[[Expr], Expr]


def sink_of(spec: Attention, arguments: dict[str, Span]) -> Sink | None:
    """The logits of heads that have no value."""
    return (lambda head: arguments["sinks"].at(head)) if spec.sinks else None
