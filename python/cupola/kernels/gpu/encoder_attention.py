"""Attention of encoders on a GPU: every token sees its whole sequence, which is at hand, so that there are no pages.

A block of threads has some rows of one sequence and one head, and walks through the sequence. Keys, then values, of
some tokens lie in the memory that its threads share; sixteen threads stand side by side, lines of them share the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.errors import UnsupportedError
from cupola.kernels.emit import Arg, Expr, Index, Span, branch, f32, i32, let, select
from cupola.kernels.gpu.emit import (
    MASKED,
    Block,
    ceildiv,
    kernel,
    last_beginning,
    launch,
    madd,
    read,
    registers,
    serial,
    shared,
    size_var,
    slots,
    split,
    sync,
    write,
    zero,
)
from cupola.kernels.gpu.functions import exp
from cupola.kernels.gpu.position import rotate

THREADS = 128
_COLUMNS = 16
_LINES = THREADS // _COLUMNS
_SHAPES = ((32, 64), (32, 32), (16, 32), (16, 16), (8, 16))  # rows and tokens, the best one first


@dataclass(frozen=True)
class EncoderAttention:
    """Attention in both directions.

    Args:
        heads, dim: each head has queries, keys and values of its own, of this many components.
        max_tokens: of one sequence.
        dtype: of what goes in and comes out.
        shared_bytes: memory that the threads of a block share.
        window: tokens that a row sees to each side of itself; 0: all of them.
        buckets: rows of a table of numbers that are added to scores; 0: there is none.
    """

    heads: int
    dim: int
    max_tokens: int
    dtype: str
    shared_bytes: int
    window: int = 0
    buckets: int = 0

    @property
    def width(self) -> int:
        """All heads side by side."""
        return self.heads * self.dim

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens of a tile. UnsupportedError: none fits."""
        for rows, tokens in _SHAPES:
            floats = rows * self.dim + tokens * (self.dim + 1) + rows * tokens + 2 * THREADS + 3 * rows
            if 4 * floats <= self.shared_bytes:
                return rows, tokens
        raise UnsupportedError(
            f"heads of {self.dim} components do not fit into the {self.shared_bytes} bytes that threads of the device "
            "share",
            hint="compile for a CPU",
        )


def prepare(heads: int, dim: int, rotary_dim: int, biased: bool, dtype: str) -> tirx.PrimFunc:
    """(qkv[n, 3 H D], bias float32[3 H D] if there is one, table if anything rotates) -> qkv + bias, with q and k
    rotated; a thread has one component."""
    n, width, half = size_var("n"), 3 * heads * dim, rotary_dim // 2

    def body(qkv: Span, y: Span, bias: Span | None = None, table: Span | None = None) -> None:
        with launch(THREADS, n, ceildiv(width, THREADS)) as block:
            # A last block that has too little to do does the last component again.
            at = let(tirx.min(block.y * THREADS + block.thread, i32(width - 1)))
            row, (_, d) = let(block.x * width), split(at, dim)

            def value(turning: Span | None) -> Expr:
                angles = let(block.x * (2 * half))
                # To rotate is linear: what is added is rotated by itself.
                parts = [rotate(qkv, let(row + at), d, turning, angles, half, dim)]
                parts += [] if bias is None else [rotate(bias, at, d, turning, angles, half, dim)]
                return parts[0] if len(parts) == 1 else let(parts[0] + parts[1])

            still = value(None)
            turned = still if table is None else select(at < 2 * heads * dim, value(table), still)
            write(y, row + at, turned)

    rows = Arg((n, width), dtype)
    args = {"qkv": rows, **({"bias": Arg((width,), "float32")} if biased else {})}
    args |= {"table": Arg((n, 2, half), "float32")} if half else {}
    return kernel("encoder_prepare", args | {"y": rows}, body)


def encoder_attention(spec: EncoderAttention) -> tirx.PrimFunc:
    """(qkv[n, 3 H D], q_indptr int32[b + 1], and bucket_of and added if there are buckets) -> y[n, H D].

    bucket_of int32[2 max_tokens - 1] is a bucket for each distance from 1 - max_tokens on, added float32[buckets, H].
    """
    n, b1, (rows, _) = size_var("n"), size_var("b1"), spec.shape
    args = {"qkv": Arg((n, 3 * spec.width), spec.dtype), "q_indptr": Arg((b1,), "int32")}
    if spec.buckets:
        args["bucket_of"] = Arg((2 * spec.max_tokens - 1,), "int32")
        args["added"] = Arg((spec.buckets, spec.heads), "float32")

    def body(**t: Span) -> None:
        sequences = b1 - 1
        with launch(THREADS, slots(n, sequences, rows), spec.heads) as block:
            s = last_beginning(block.x, sequences, lambda s: let(slots(t["q_indptr"].at(s), s, rows)))
            begin = t["q_indptr"].at(s)
            length = let(t["q_indptr"].at(s + 1) - begin)
            first_row = let((block.x - slots(begin, s, rows)) * rows)
            branch(first_row < length, lambda: _Tile.begin(spec, block, t, begin, length, first_row).run())

    return kernel("encoder_attention", args | {"y": Arg((n, spec.width), spec.dtype)}, body)


@dataclass(frozen=True)
class _Tile:
    """Some rows of one sequence and head. Rows behind the sequence's end are computed as its last one, and dropped.

    Args:
        first: row of the sequence's first token.
        length: tokens of the sequence.
        first_row: of the tile, within the sequence.
    """

    spec: EncoderAttention
    block: Block
    arguments: dict[str, Span]
    first: Expr
    length: Expr
    first_row: Expr
    q: Span  # [rows, D]
    others: Span  # [tokens, D + 1]: keys, then values; threads with a token each meet in no bank
    scores: Span  # [rows, tokens]
    partial: Span  # [2, threads]
    state: Span  # [3, rows]: largest score, sum, and the factor on what was summed before
    sums: Span  # registers [rows of a thread, components of a thread]

    @classmethod
    def begin(
        cls,
        spec: EncoderAttention,
        block: Block,
        arguments: dict[str, Span],
        first: Expr,
        length: Expr,
        first_row: Expr,
    ) -> _Tile:
        """Allocates memory and loads the queries."""
        rows, tokens = spec.shape
        tile = cls(
            spec,
            block,
            arguments,
            first,
            length,
            first_row,
            q=shared(rows * spec.dim),
            others=shared(tokens * (spec.dim + 1)),
            scores=shared(rows * tokens),
            partial=shared(2 * THREADS),
            state=shared(3 * rows),
            sums=registers(rows // _LINES * _components(spec.dim), fill=zero()),
        )
        tile._load_queries()
        return tile

    @property
    def rows(self) -> int:
        return self.spec.shape[0]

    @property
    def tokens(self) -> int:
        return self.spec.shape[1]

    @property
    def lanes(self) -> int:
        """Threads that have one row in the softmax."""
        return THREADS // self.rows

    def run(self) -> None:
        first, stop = self._blocks()
        with serial(stop - first) as i:
            start = let((first + i) * self.tokens)
            sync()
            self._load(1, start)
            sync()
            self._score(start)
            sync()
            self._largest()
            self._load(2, start)
            sync()
            self._weights()
            sync()
            branch(self.block.thread < self.rows, lambda: self._update(self.block.thread))
            sync()
            self._weigh(start)
        self._store()

    def _blocks(self) -> tuple[Index, Index]:
        """The blocks of tokens of which some row sees something: from one, up to the other."""
        window = self.spec.window
        if not window:
            return i32(0), ceildiv(self.length, self.tokens)
        first = let(tirx.truncdiv(tirx.max(self.first_row - window, i32(0)), i32(self.tokens)))
        return first, ceildiv(let(tirx.min(self.length, self.first_row + (self.rows + window))), self.tokens)

    def _load_queries(self) -> None:
        rows, dim = self.rows, self.spec.dim

        def load(at: Expr) -> None:
            row, d = split(at, dim)
            value = self._projected(0, let(self.first_row + row), d)
            self.q.put(at, let(value * f32(dim**-0.5)))

        def reset(row: Expr) -> None:
            self.state.put(row, f32(MASKED))
            self.state.put(row + rows, zero())

        self.block.each(rows * dim, load)
        self.block.each(rows, reset)

    def _load(self, part: int, start: Expr) -> None:
        """Keys (1) or values (2) of a block of tokens."""

        def load(at: Expr) -> None:
            token, d = split(at, self.spec.dim)
            self.others.put(token * (self.spec.dim + 1) + d, self._projected(part, let(start + token), d))

        self.block.each(self.tokens * self.spec.dim, load)

    def _projected(self, part: int, token: Expr, component: Expr) -> Expr:
        """A component of a query, key or value; behind the sequence's end its last token's."""
        spec = self.spec
        row = let((self.first + self._within(token)) * (3 * spec.width))
        return read(self.arguments["qkv"], let(row + part * spec.width + self.block.y * spec.dim + component))

    def _within(self, token: Expr) -> Expr:
        return let(tirx.min(token, self.length - 1))

    def _mine(self) -> tuple[list[Expr], Expr]:
        """The rows of this thread, and its column."""
        line, column = split(self.block.thread, _COLUMNS)
        return [let(line + r * _LINES) for r in range(self.rows // _LINES)], column

    def _score(self, start: Expr) -> None:
        dim, (rows, column) = self.spec.dim, self._mine()
        tokens = [let(column + c * _COLUMNS) for c in range(self.tokens // _COLUMNS)]
        dots = registers(len(rows) * len(tokens), fill=zero())
        with serial(dim) as d:
            keys = [self.others.at(token * (dim + 1) + d) for token in tokens]
            for r, row in enumerate(rows):
                query = self.q.at(row * dim + d)
                for c, key in enumerate(keys):
                    at = r * len(tokens) + c
                    dots.put(at, madd(query, key, dots.at(at)))
        for r, row in enumerate(rows):
            for c, token in enumerate(tokens):
                score = self._seen(let(self.first_row + row), let(start + token), dots.at(r * len(tokens) + c))
                self.scores.put(row * self.tokens + token, score)

    def _seen(self, row: Expr, token: Expr, dot: Expr) -> Expr:
        """A score, with what its distance adds; masked where the row does not see the token."""
        spec = self.spec
        distance = let(self._within(token) - self._within(row))
        if spec.buckets:
            bucket = self.arguments["bucket_of"].at(distance + (spec.max_tokens - 1))
            dot = let(dot + self.arguments["added"].at(bucket * spec.heads + self.block.y))
        seen = token < self.length
        if spec.window:
            near = tirx.And(distance <= i32(spec.window), distance >= i32(-spec.window))
            seen = tirx.And(seen, near)
        return select(let(seen), dot, f32(MASKED))

    def _largest(self) -> None:
        row, lane = split(self.block.thread, self.lanes)
        found = f32(MASKED)
        for at in self._scores_of(row, lane):
            found = let(tirx.max(found, self.scores.at(at)))
        self.partial.put(self.block.thread, found)

    def _weights(self) -> None:
        """Scores become weights."""
        row, lane = split(self.block.thread, self.lanes)
        newest, total = self._newest(row), zero()
        for at in self._scores_of(row, lane):
            score = self.scores.at(at)
            weight = select(score > f32(MASKED / 2), exp(let(score - newest)), zero())
            self.scores.put(at, weight)
            total = let(total + weight)
        self.partial.put(self.block.thread + THREADS, total)

    def _scores_of(self, row: Expr, lane: Expr) -> list[Expr]:
        return [let(row * self.tokens + lane + i * self.lanes) for i in range(self.tokens // self.lanes)]

    def _newest(self, row: Expr) -> Expr:
        """The largest score of a row so far, this block included."""
        found = self.state.at(row)
        for lane in range(self.lanes):
            found = let(tirx.max(found, self.partial.at(row * self.lanes + lane)))
        return found

    def _update(self, row: Expr) -> None:
        """The state of a row becomes that of all tokens so far."""
        newest = self._newest(row)
        factor = exp(let(self.state.at(row) - newest))
        total = let(self.state.at(row + self.rows) * factor)
        for lane in range(self.lanes):
            total = let(total + self.partial.at(row * self.lanes + (lane + THREADS)))
        for i, value in enumerate((newest, total, factor)):
            self.state.put(row + i * self.rows, value)

    def _weigh(self, start: Expr) -> None:
        """Adds the values of a block by their weights."""
        dim, (rows, column) = self.spec.dim, self._mine()
        components = [let(tirx.min(column + c * _COLUMNS, i32(dim - 1))) for c in range(_components(dim))]
        for r, row in enumerate(rows):
            factor = self.state.at(row + 2 * self.rows)
            for c in range(len(components)):
                at = r * len(components) + c
                self.sums.put(at, let(self.sums.at(at) * factor))
        with serial(tirx.min(self.length - start, i32(self.tokens))) as token:
            values = [self.others.at(token * (dim + 1) + component) for component in components]
            for r, row in enumerate(rows):
                weight = self.scores.at(row * self.tokens + token)
                for c, value in enumerate(values):
                    at = r * len(components) + c
                    self.sums.put(at, madd(weight, value, self.sums.at(at)))

    def _store(self) -> None:
        spec, (rows, column) = self.spec, self._mine()
        count = _components(spec.dim)
        for r, row in enumerate(rows):
            inside = let(self.first_row + row)
            total = self.state.at(row + self.rows)
            base = let((self.first + inside) * spec.width + self.block.y * spec.dim)
            for c in range(count):
                component = let(column + c * _COLUMNS)

                def store(r: int = r, c: int = c, base: Expr = base, total: Expr = total, d: Expr = component) -> None:
                    write(self.arguments["y"], base + d, let(self.sums.at(r * count + c) / total))

                branch(let(tirx.And(inside < self.length, component < spec.dim)), store)


def _components(dim: int) -> int:
    """Components of a thread."""
    return -(-dim // _COLUMNS)
