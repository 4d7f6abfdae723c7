"""Log-probabilities of raw logits: those of the chosen tokens with their ranks, and the most probable ones."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, bits, branch, cast, f32, i32, let, select
from cupola.kernels.gpu.emit import Block, block_max, block_sum, launch, registers, serial, shared
from cupola.kernels.gpu.sample_row import BANNED, KNOWN, PLENTY, RAW_MAX, RAW_SUM, THREADS, Rows, strided


@dataclass(frozen=True)
class Report:
    """What is told of those rows that `listed` names.

    Args:
        spans: logits, known, out; `best` float32 and `best_ids` int32 [t, m, parts], `ahead` float32 [m, parts].
        width: numbers of a row of `out`: its rank, then pairs of a token and a log-probability.
    """

    rows: Rows
    listed: Span
    spans: dict[str, Span]
    m: tirx.Var
    width: Expr

    def run(self, count: Expr, tops: Expr) -> None:
        """Launches it for `count` rows, and the `tops` most probable tokens of each."""
        with launch(THREADS, self.rows.parts, count) as block:
            self._rank_part(block)
        with launch(THREADS, 1, count) as block:
            self._rank(block)

        def best() -> None:
            with serial(tops) as place, launch(THREADS, self.rows.parts, count) as block:
                self._next(block, place)
            with launch(THREADS, tops, count) as block:
                self._name(block)

        branch(tops > 0, best)

    def _rank_part(self, block: Block) -> None:
        """How many of a part are more probable than the row's token, or as probable and lower."""
        row, memory, count = self.listed.at(block.y), shared(THREADS), registers(1, fill=f32(0.0))
        start, token = let(row * self.rows.stride), self._token(row)
        logit = self.spans["logits"].at(start + token)

        def compare(at: Expr) -> None:
            value = self.rows.value(self.spans["logits"], start, at)
            before = tirx.Or(value > logit, tirx.And(value == logit, at < token))
            count.put(0, let(count.at(0) + select(before, f32(1.0), f32(0.0))))

        strided(block, compare)
        total = block_sum(block, memory, count.at(0))
        branch(block.thread == 0, lambda: self.spans["ahead"].put(row * self.rows.parts + block.x, total))

    def _token(self, row: Expr) -> Expr:
        """The row's token; 0 where it has none."""
        return let(tirx.max(self.spans["out"].at(row * self.width + 1), i32(0)))

    def _rank(self, block: Block) -> None:
        row = self.listed.at(block.y)

        def once() -> None:
            ahead = registers(1, fill=f32(1.0))
            with serial(self.rows.parts) as part:
                ahead.put(0, let(ahead.at(0) + self.spans["ahead"].at(row * self.rows.parts + part)))
            first, logit = let(row * self.width), self.spans["logits"].at(row * self.rows.stride + self._token(row))
            self.spans["out"].put(first, cast(ahead.at(0), "int32"))
            self.spans["out"].put(first + 2, bits(self._logprob(row, logit), "int32"))

        branch(block.thread == 0, once)

    def _logprob(self, row: Expr, logit: Expr) -> Expr:
        known = self.spans["known"]
        return let(logit - known.at(row * KNOWN + RAW_MAX) - known.at(row * KNOWN + RAW_SUM))

    def _next(self, block: Block, place: Expr) -> None:
        """The most probable token of a part behind the row's `place` most probable ones."""
        row, memory = self.listed.at(block.y), shared(THREADS)
        start = let(row * self.rows.stride)
        value, id_ = self._winner(block, memory, row, let(tirx.max(place - 1, i32(0))))
        # The first one comes behind all that floats can hold.
        last, last_name = select(place == 0, f32(-BANNED), value), select(place == 0, f32(1.0), let(-id_))
        best, lowest = registers(1, fill=f32(BANNED)), registers(1, fill=f32(-PLENTY))

        def compare(at: Expr) -> None:
            found, name = self.rows.value(self.spans["logits"], start, at), let(-cast(at, "float32"))
            behind = tirx.Or(found < last, tirx.And(found == last, name < last_name))
            better = tirx.Or(found > best.at(0), tirx.And(found == best.at(0), name > lowest.at(0)))

            def take() -> None:
                best.put(0, found)
                lowest.put(0, name)

            branch(tirx.And(at < self.rows.vocabulary, tirx.And(behind, better)), take)

        strided(block, compare)
        top = block_max(block, memory, best.at(0))
        first = block_max(block, memory, select(best.at(0) == top, lowest.at(0), f32(-PLENTY)))

        def put() -> None:
            at = let((place * self.m + row) * self.rows.parts + block.x)
            self.spans["best"].put(at, top)
            self.spans["best_ids"].put(at, cast(let(-first), "int32"))

        branch(block.thread == 0, put)

    def _winner(self, block: Block, memory: Span, row: Expr, place: Expr) -> tuple[Expr, Expr]:
        """(logit, id as a float) of the row's token at a place, from those of its parts."""
        first = let((place * self.m + row) * self.rows.parts)
        part = let(tirx.min(block.thread, i32(self.rows.parts - 1)))
        value, id_ = self.spans["best"].at(first + part), self.spans["best_ids"].at(first + part)
        top = block_max(block, memory, value)
        name = block_max(block, memory, select(value == top, let(-cast(id_, "float32")), f32(-PLENTY)))
        return top, let(-name)

    def _name(self, block: Block) -> None:
        row = self.listed.at(block.y)
        value, id_ = self._winner(block, shared(THREADS), row, block.x)

        def put() -> None:
            at = let(row * self.width + 3 + block.x * 2)
            self.spans["out"].put(at, cast(id_, "int32"))
            self.spans["out"].put(at + 1, bits(self._logprob(row, value), "int32"))

        branch(block.thread == 0, put)
