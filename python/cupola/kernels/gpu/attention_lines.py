"""Keys and values of a block of tokens in memory of the block: lines of chunks of 16 bytes, without conflicts of banks.

Eight lanes move 128 bytes at a time: from two neighbouring lines four chunks each. Lines are an odd number of half a
round of banks long (64 bytes), or whole rounds, and then chunks are shuffled within eight: those of odd lines change
places with the other four, so that the two lines' lie apart; and by the second bit of the line they change by two, so
that what is written four lines at a time, two chunks of each, lies apart too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, branch, i32, let
from cupola.kernels.gpu.attention_fragments import STEP, TILES, Fragments, Load, Words
from cupola.kernels.gpu.attention_spec import Attention
from cupola.kernels.gpu.attention_warp import CHUNK, CHUNK_BYTES, CHUNK_WORDS, Warp, words
from cupola.kernels.gpu.emit import Block, registers, shared, split
from cupola.kernels.gpu.matrix_unit import OUTPUTS

_ROUND = 8  # chunks


@dataclass(frozen=True)
class Lines:
    """Lines in words of memory.

    Args:
        first: the word where they begin.
        count: how many there are.
        stride: chunks from one to the next.
    """

    first: int
    count: int
    stride: int

    @classmethod
    def of(cls, first: int, count: int, chunks: int) -> Lines:
        return cls(first, count, chunks if chunks % _ROUND == 0 else chunks + (_ROUND // 2 - chunks) % _ROUND)

    @property
    def stop(self) -> int:
        return self.first + self.count * self.stride * CHUNK_WORDS

    @property
    def shuffled(self) -> bool:
        return self.stride % _ROUND == 0

    def place(self, line: Expr, chunk: Expr) -> Expr:
        """Where a chunk begins, in words."""
        inside = let(chunk ^ _shuffle(line)) if self.shuffled else chunk
        return let((line * self.stride + inside) * CHUNK_WORDS + self.first)

    def reader(self, line: Expr, t: Expr) -> Callable[[int, int], Expr]:
        """Where the chunk t + `chunk` of the line `line` + `offset` begins, for constants that leave the shuffled bits
        of their variable parts alone: what differs by them is computed once, and the rest is part of instructions."""
        start = let(line * self.stride)
        if not self.shuffled:
            base = let((start + t) * CHUNK_WORDS + self.first)
            return lambda offset, chunk: let(base + (offset * self.stride + chunk) * CHUNK_WORDS)
        inside = let(t ^ _shuffle(line))
        bases = {bits: let((start + (inside ^ i32(bits))) * CHUNK_WORDS + self.first) for bits in (0, 2, 4, 6)}

        def place(offset: int, chunk: int) -> Expr:
            rest = offset * self.stride + chunk // _ROUND * _ROUND
            return let(bases[chunk & 4 | offset & 2] + rest * CHUNK_WORDS)

        return place


@dataclass(frozen=True)
class Source:
    """Whose keys and values: of one key-value head of a sequence, whose first page is `page_ids[first_page]`.

    Args:
        seen: tokens that somebody sees.
    """

    spec: Attention
    arguments: dict[str, Span]
    first_page: Expr
    key_head: Expr
    seen: Expr

    def head(self, position: Expr) -> tuple[Expr, Expr]:
        """Where the head begins in the page of a token, or of the last that is seen, and the token within a page."""
        pages = self.spec.pages
        index, _ = split(let(tirx.min(position, self.seen - 1)), pages.page_size)
        page = self.arguments["page_ids"].at(self.first_page + index)
        return pages.head(page, self.key_head), split(position, pages.page_size)[1]


@dataclass(frozen=True)
class BlockCopies:
    """A block of `tokens` tokens: the copies of it, and what lanes read of these."""

    source: Source
    tokens: int
    block: Block
    warp: Warp
    pages: Span  # words
    memory: Span  # words
    keys: Lines  # [tokens], of components
    values: Lines  # [components], of tokens

    @classmethod
    def begin(cls, source: Source, tokens: int, block: Block, warp: Warp) -> BlockCopies:
        dim = source.spec.pages.heads.dim
        keys = Lines.of(0, tokens, dim // CHUNK)
        values = Lines.of(keys.stop, dim, tokens // CHUNK)
        memory = shared(values.stop, "uint32")
        return cls(source, tokens, block, warp, words(source.arguments["pages"]), memory, keys, values)

    def copy_keys(self, start: Expr) -> None:
        """Of the tokens from `start` on; the last one that is seen stands for those that nobody sees."""
        chunks, threads = self.source.spec.pages.heads.dim // CHUNK, self.block.threads
        together = threads // _ROUND  # lines that all threads copy a round of
        if chunks % _ROUND or self.tokens % together:
            self._each(self.tokens * chunks, lambda at: self._copy_key(start, *split(at, chunks), 1, 1))
        else:
            for first in range(0, self.tokens, together):
                line, chunk = split(self.block.thread, _ROUND)
                self._copy_key(start, let(line + first), chunk, chunks // _ROUND, _ROUND)

    def _copy_key(self, start: Expr, token: Expr, chunk: Expr, count: int, apart: int) -> None:
        """So many chunks of one token."""
        pages = self.source.spec.pages
        head, inside = self.source.head(let(tirx.min(start + token, self.source.seen - 1)))
        at, to = let(pages.key(head, chunk * CHUNK, inside) >> i32(1)), self.keys.place(token, chunk)
        for i in range(count):
            further = i * apart * CHUNK_WORDS
            self.warp.copy(self.pages, let(at + further), self.memory, let(to + further))

    def copy_values(self, start: Expr) -> None:
        """The same; nobody's are zeros, since what lies there may be anything, and weights of 0 do not hide it."""
        pages, threads = self.source.spec.pages, self.block.threads
        dim, together = pages.heads.dim, min(pages.page_size, self.tokens) // CHUNK
        lines = threads // together  # components of whose tokens in one page all threads copy what there is
        parts = self.tokens // (together * CHUNK)
        if dim % lines:

            def one(at: Expr) -> None:
                rest, inside = split(at, together)
                part, component = split(rest, dim)
                self._copy_value(start, component, let(part * together + inside), 1, 1)

            self._each(dim * together * parts, one)
            return
        component, inside = split(self.block.thread, together)
        for part in range(parts):
            self._copy_value(start, component, let(inside + part * together), dim // lines, lines)

    def _copy_value(self, start: Expr, component: Expr, chunk: Expr, count: int, apart: int) -> None:
        """The same chunk of so many components; lines that are multiples of four apart are shuffled alike."""
        pages, source = self.source.spec.pages, self.source
        position = let(start + chunk * CHUNK)
        head, token = source.head(position)
        at, to = let(pages.value(head, component, token) >> i32(1)), self.values.place(component, chunk)
        size = let(tirx.max(tirx.min((source.seen - position) * 2, i32(CHUNK_BYTES)), i32(0)))
        for i in range(count):
            further, words_ = i * apart * pages.page_size // 2, i * apart * self.values.stride * CHUNK_WORDS
            self.warp.copy(self.pages, let(at + further), self.memory, let(to + words_), size)

    def readers(self, fragments: Fragments) -> tuple[Load, Load]:
        """What `Fragments` loads keys and values with."""
        lane = fragments.lane
        key, value = self.keys.reader(lane.key, lane.t), self.values.reader(lane.g, lane.t)
        # Where a lane has half a chunk; such lines are not shuffled.
        tail = let(lane.key * (self.keys.stride * CHUNK_WORDS) + lane.t * 2 + self.keys.first)

        def load_key(u: int, j: int, step: int) -> Words:
            token, width = u * STEP + 2 * j, fragments.width(step)
            target = registers(width, "uint32")
            if width == CHUNK_WORDS:
                at = key(token, step * 4)
            else:
                at = let(tail + (token * self.keys.stride + step * 4) * CHUNK_WORDS)
            self.warp.pick(self.memory, at, target, range(width))
            return target, 0

        def load_value(u: int, tile: int, _: int) -> Words:
            target = registers(CHUNK_WORDS, "uint32")
            self.warp.pick(self.memory, value(tile * OUTPUTS, u * TILES), target, range(CHUNK_WORDS))
            return target, 0

        return load_key, load_value

    def _each(self, count: int, body: Callable[[Expr], None]) -> None:
        """As `Block.each`, written out, so that all copies are under way together."""
        full, rest = divmod(count, self.block.threads)
        for i in range(full):
            body(let(self.block.thread + i * self.block.threads))
        if rest:
            at = let(self.block.thread + full * self.block.threads)
            branch(self.block.thread < rest, lambda: body(at))


def _shuffle(line: Expr) -> Expr:
    return let(((line & i32(1)) << i32(2)) | (line & i32(2)))
