"""Sampling on the device: rows of logits in, tokens and the log-probabilities that were asked for out.

It is the processor's sampler (`cpp/sampling/sampler.h`), with the same random numbers, which the host draws: logits are
changed as the request asks (edits of single tokens, masks of allowed ones), top-k and top-p cut the row
(`sample_search.py`), min-p drops what is too improbable, and of what is left, in the order of the vocabulary, the token
is taken at which the weights reach the random number. Greedy rows take the same way.
"""

from __future__ import annotations

from functools import partial

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, bits, branch, cast, f32, i32, let, select
from cupola.kernels.gpu.emit import (
    Block,
    block_max,
    block_sum,
    kernel,
    launch,
    registers,
    serial,
    shared,
    size_var,
    sync,
    u32,
)
from cupola.kernels.gpu.sample_report import Report
from cupola.kernels.gpu.sample_row import (
    BAD,
    BANNED,
    EACH,
    GIVEN,
    KNOWN,
    LOWEST_KEY,
    MASK,
    MAX,
    PART,
    PLENTY,
    RAW_MAX,
    RAW_SUM,
    SETTINGS,
    THREADS,
    UNIFORM,
    Rows,
    Threshold,
    Walk,
    Weighing,
    strided,
)
from cupola.kernels.gpu.sample_search import Search, kept_of_row, scratch

EDIT = 5  # int32 numbers of an edit: row, token; bits of: what is added, what it is divided by, what is taken away
LARGEST = 1e38  # as the processor's: no sum or product of two of these leaves the floats
NOTHING_ALLOWED, NOT_FINITE = -1, -2  # in place of a token
Spans = dict[str, Span]


def sample(rows: Rows) -> tirx.PrimFunc:
    """Emits the kernels as one function.

    Arguments, all int32 but the logits:
        logits: float32 [m, stride].
        settings: [8 m], see `sample_row.py`; in a row's `MASK` is the first word of its mask, or -1, in `GIVEN` the
            token that is only reported, or -1.
        by_count, by_mass, reported: the rows that top-k cuts, that top-p cuts, and whose log-probabilities are wanted.
        masks: words of 32 bits, one for a token that may come.
        edits: [5 e]; of each row and token at most one, and at least one in all.
        places: [t]: the places for tokens in the result, whatever it holds; t - 1 most probable ones are told.
        out: [m, 1 + 2 t]: a rank, then t pairs of a token and the bits of its log-probability, the chosen one first.
            Rank and log-probabilities are those of `reported` rows only. What follows it is scratch memory.
    """
    m, t = size_var("m"), size_var("t")
    ints = {"settings": m * SETTINGS, "by_count": size_var("s"), "by_mass": size_var("q"), "reported": size_var("l")}
    ints |= {"masks": size_var("w"), "edits": size_var("e"), "places": t}
    parts = rows.parts
    args = {
        "logits": Arg((m, rows.stride), "float32"),
        **{name: Arg((extent,), "int32") for name, extent in ints.items()},
        "out": Arg((m, 1 + 2 * t), "int32"),
        "changed": Arg((m, rows.stride), "float32"),
        "part_known": Arg((m, parts, KNOWN), "float32"),
        "known": Arg((m, KNOWN), "float32"),
        "thresholds": Arg((m, 2), "int32"),
        "measured": Arg((m, parts, 2), "float32"),
        **scratch(rows, m),
        "best": Arg((t, m, parts), "float32"),
        "best_ids": Arg((t, m, parts), "int32"),
        "ahead": Arg((m, parts), "float32"),
    }

    def body(**spans: Span) -> None:
        steps = _Steps(rows, spans, m)
        steps.change(ints["edits"])
        steps.know()
        count, mass = ints["by_count"], ints["by_mass"]
        branch(count > 0, lambda: Search(rows, False, spans["by_count"], spans, m).run(count))

        def cut_by_mass() -> None:
            steps.measure(floor=False)
            Search(rows, True, spans["by_mass"], spans, m).run(mass)

        branch(mass > 0, cut_by_mass)
        steps.measure(floor=True)
        steps.draw(1 + 2 * t)
        told = ints["reported"]
        branch(told > 0, lambda: Report(rows, spans["reported"], spans, m, 1 + 2 * t).run(told, t - 1))

    return kernel("sample", args, body)


class _Steps:
    """The launches that every row takes part in."""

    def __init__(self, rows: Rows, spans: Spans, m: tirx.Var) -> None:
        self._rows, self._spans, self._m = rows, spans, m

    def change(self, edits: Expr) -> None:
        """Copies the rows without what their masks ban, and changes single tokens of the copies."""
        with launch(THREADS, self._rows.parts, self._m) as block:
            self._mask(block)
        count = let(tirx.truncdiv(edits, i32(EDIT)))
        with launch(THREADS, let(tirx.truncdiv(count + (THREADS - 1), i32(THREADS)))) as block:
            at = let(block.x * THREADS + block.thread)
            branch(at < count, lambda: self._edit(let(at * EDIT)))

    def _mask(self, block: Block) -> None:
        row, memory = block.y, shared(THREADS)
        start, first = let(row * self._rows.stride), self._spans["settings"].at(row * SETTINGS + MASK)
        values, top, bad = registers(EACH), registers(1, fill=f32(BANNED)), registers(1, fill=f32(0.0))
        for i in range(EACH):
            at = let(block.x * PART + i * THREADS + block.thread)
            value = self._rows.value(self._spans["logits"], start, at)
            values.put(i, value)
            top.put(0, let(tirx.max(top.at(0), value)))
            exponent = let(bits(value, "uint32") & u32(0x7F800000))
            bad.put(0, select(exponent == u32(0x7F800000), f32(1.0), bad.at(0)))
            branch(at < self._rows.vocabulary, partial(self._copy, start, at, first, value))
        raw_max = block_max(block, memory, top.at(0))
        sum_ = f32(0.0)
        for i in range(EACH):
            sum_ = let(sum_ + tirx.exp(values.at(i) - raw_max))
        total, any_bad = block_sum(block, memory, sum_), block_max(block, memory, bad.at(0))

        def put() -> None:
            known = let((row * self._rows.parts + block.x) * KNOWN)
            for place, value in ((RAW_MAX, raw_max), (RAW_SUM, total), (BAD, any_bad)):
                self._spans["part_known"].put(known + place, value)

        branch(block.thread == 0, put)

    def _copy(self, start: Expr, at: Expr, first: Expr, value: Expr) -> None:
        word = self._spans["masks"].at(select(first < 0, i32(0), let(first + (at >> i32(5)))))
        allowed = tirx.Or(first < 0, ((word >> (at & i32(31))) & i32(1)) != 0)
        self._spans["changed"].put(start + at, select(allowed, value, f32(BANNED)))

    def _edit(self, edit: Expr) -> None:
        edits = self._spans["edits"]
        at = let(edits.at(edit) * self._rows.stride + edits.at(edit + 1))
        added, divisor, taken = (bits(edits.at(edit + i), "float32") for i in (2, 3, 4))
        logit = _bounded(let(self._spans["logits"].at(at) + added))
        logit = select(logit > f32(0.0), let(logit / divisor), let(logit * divisor))
        logit = _bounded(let(logit - taken))
        # What is taken away in full is banned; so is, still, what a mask has banned.
        banned = tirx.Or(taken >= f32(-BANNED), self._spans["changed"].at(at) == f32(BANNED))
        self._spans["changed"].put(at, select(banned, f32(BANNED), logit))

    def know(self) -> None:
        """What is known of each row, and thresholds that keep everything."""
        with launch(THREADS, self._rows.parts, self._m) as block:
            self._top(block)
        with launch(THREADS, 1, self._m) as block:
            self._join(block)

    def _top(self, block: Block) -> None:
        top, start = registers(1, fill=f32(BANNED)), let(block.y * self._rows.stride)

        def compare(at: Expr) -> None:
            top.put(0, let(tirx.max(top.at(0), self._rows.value(self._spans["changed"], start, at))))

        strided(block, compare)
        found = block_max(block, shared(THREADS), top.at(0))
        place = let((block.y * self._rows.parts + block.x) * KNOWN + MAX)
        branch(block.thread == 0, lambda: self._spans["part_known"].put(place, found))

    def _join(self, block: Block) -> None:
        memory, parts, known = shared(THREADS), self._spans["part_known"], self._spans["known"]
        # Behind the last part its thread reads that again, and adds nothing.
        part = let(tirx.min(block.thread, i32(self._rows.parts - 1)))
        first = let((block.y * self._rows.parts + part) * KNOWN)
        raw_max, top, bad = (block_max(block, memory, parts.at(first + place)) for place in (RAW_MAX, MAX, BAD))
        share = let(parts.at(first + RAW_SUM) * tirx.exp(parts.at(first + RAW_MAX) - raw_max))
        total = block_sum(block, memory, select(block.thread < self._rows.parts, share, f32(0.0)))

        def put() -> None:
            row = let(block.y * KNOWN)
            for place, value in ((RAW_MAX, raw_max), (RAW_SUM, let(tirx.log(total))), (MAX, top), (BAD, bad)):
                known.put(row + place, value)
            self._spans["thresholds"].put(block.y * 2, i32(LOWEST_KEY))
            self._spans["thresholds"].put(block.y * 2 + 1, bits(let(f32(PLENTY)), "int32"))

        branch(block.thread == 0, put)

    def measure(self, *, floor: bool) -> None:
        """How much each part keeps, with or without min-p."""
        with launch(THREADS, self._rows.parts, self._m) as block:
            row, memory = block.y, shared(THREADS)
            weighing, threshold = self._of(row, floor=floor)
            start, sums = let(row * self._rows.stride), registers(2, fill=f32(0.0))

            def add(at: Expr) -> None:
                value = self._rows.value(self._spans["changed"], start, at)
                sure, equal = threshold.split(value, weighing)
                sums.put(0, let(sums.at(0) + sure))
                sums.put(1, let(sums.at(1) + equal))

            strided(block, add)
            found = [block_sum(block, memory, sums.at(i)) for i in (0, 1)]
            place = let((row * self._rows.parts + block.x) * 2)

            def put() -> None:
                for i in (0, 1):
                    self._spans["measured"].put(place + i, found[i])

            branch(block.thread == 0, put)

    def _of(self, row: Expr, *, floor: bool) -> tuple[Weighing, Threshold]:
        weighing = Weighing.of(self._spans["settings"], self._spans["known"], row, floor=floor)
        return weighing, Threshold.of(self._spans["thresholds"], row, weighing)

    def draw(self, width: Expr) -> None:
        """The token at which the weights reach the random number: first the part, then the thread, then the token."""
        with launch(THREADS, 1, self._m) as block:
            row, memory = block.y, shared(2 * THREADS + 3)
            weighing, threshold = self._of(row, floor=True)
            branch(block.thread == 0, partial(self._find_part, row, threshold, memory))
            sync()
            part = cast(memory.at(2 * THREADS), "int32")
            first = let(tirx.max(part, i32(0)) * PART + block.thread * EACH)
            start = let(row * self._rows.stride)

            def value(i: Expr) -> tuple[Expr, Expr]:
                return threshold.split(self._rows.value(self._spans["changed"], start, let(i)), weighing)

            sums = registers(2, fill=f32(0.0))
            with serial(EACH) as i:
                for place, more in enumerate(value(first + i)):
                    sums.put(place, let(sums.at(place) + more))
            for place in (0, 1):
                memory.put(place * THREADS + block.thread, sums.at(place))
            sync()

            def finish() -> None:
                walk = Walk.begin(memory.at(2 * THREADS + 1))
                walk.numbers.put(1, memory.at(2 * THREADS + 2))
                walk.along(THREADS, threshold, lambda i: (memory.at(i), memory.at(i + THREADS)))
                begin = let(part * PART + tirx.max(walk.chosen, i32(0)) * EACH)
                walk.along(EACH, threshold, lambda i: value(begin + i))
                self._put(row, width, part, let(begin + walk.chosen))

            branch(block.thread == 0, finish)

    def _find_part(self, row: Expr, threshold: Threshold, memory: Span) -> None:
        measured, parts = self._spans["measured"], self._rows.parts
        total = kept_of_row(self._rows, measured, row, threshold)
        walk = Walk.begin(let(bits(self._spans["settings"].at(row * SETTINGS + UNIFORM), "float32") * total))

        def load(part: Expr) -> tuple[Expr, Expr]:
            at = let((row * parts + part) * 2)
            return measured.at(at), measured.at(at + 1)

        walk.along(parts, threshold, load)
        for i, number in enumerate((cast(walk.chosen, "float32"), walk.rest, walk.seen)):
            memory.put(2 * THREADS + i, number)

    def _put(self, row: Expr, width: Expr, part: Expr, token: Expr) -> None:
        known = self._spans["known"]
        nothing = tirx.Or(part < 0, known.at(row * KNOWN + MAX) <= f32(BANNED))
        chosen = select(nothing, i32(NOTHING_ALLOWED), token)
        given = self._spans["settings"].at(row * SETTINGS + GIVEN)
        result = select(given >= 0, given, chosen)
        finite = known.at(row * KNOWN + BAD) == f32(0.0)
        self._spans["out"].put(row * width + 1, select(finite, result, i32(NOT_FINITE)))


def _bounded(logit: Expr) -> Expr:
    return let(tirx.max(tirx.min(logit, f32(LARGEST)), f32(-LARGEST)))
