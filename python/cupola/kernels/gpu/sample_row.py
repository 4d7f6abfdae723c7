"""What the kernels of sampling share: how a row is cut into parts, its numbers, its weights, and walks along it.

A row of logits is cut into parts of 4,096, of which every block of threads takes one. Numbers that were summed over
parts, or over the threads of a block, are summed in one fixed order, so that a row's token is a function of that row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, bits, branch, dtype_of, f32, i32, let, select
from cupola.kernels.gpu.emit import Block, registers, serial, u32

THREADS = 256
EACH = 16  # values of a thread
PART = THREADS * EACH
BANNED = -3.4028234663852886e38  # as `kBanned` of the processor's sampler
LOWEST_KEY = 0x00800000  # of BANNED
PLENTY = 1e9  # more than any vocabulary holds

# The numbers of a row, 8 of 32 bits; `cpp/model/sample_rows.h` fills them.
SETTINGS = 8
SCALE, TOP_P, MIN_P, UNIFORM, TOP_K, MASK, GIVEN = range(7)

# What is known of each part: the largest raw logit, the sum of e^(raw - that), the largest logit after all changes,
# whether a logit is not finite. Of a row: the same, with the logarithm of the sum.
KNOWN = 4
RAW_MAX, RAW_SUM, MAX, BAD = range(KNOWN)


@dataclass(frozen=True)
class Rows:
    """Rows of logits: `vocabulary` values each, `stride` from one to the next."""

    vocabulary: int
    stride: int

    @property
    def parts(self) -> int:
        return -(-self.vocabulary // PART)

    def value(self, row: Span, start: Expr, at: Expr) -> Expr:
        """The logit at a place of the row that begins at `start`; what lies behind its end is banned."""
        inside = row.at(start + tirx.min(at, i32(self.vocabulary - 1)))
        return held(select(at < self.vocabulary, inside, f32(BANNED)))


def strided(block: Block, body: Callable[[Expr], None]) -> None:
    """Calls `body` with every place of the block's part, neighbours on neighbouring threads."""
    first = let(block.x * PART + block.thread)
    with serial(EACH) as i:
        body(let(first + i * THREADS))


def held(value: Expr) -> Expr:
    """The value out of a register, behind which TVM does not look: it would reason about nested choices for minutes."""
    register = registers(1, dtype_of(value))
    register.put(0, value)
    return register.at(0)


def key_of(value: Expr) -> Expr:
    """An integer that is larger the larger the float is."""
    code = bits(held(select(value == f32(0.0), f32(0.0), value)), "uint32")
    return held(select(code >= u32(0x80000000), let(code ^ u32(0xFFFFFFFF)), let(code ^ u32(0x80000000))))


def value_of(key: Expr) -> Expr:
    """The float of an integer."""
    code = select(key >= u32(0x80000000), let(key ^ u32(0x80000000)), let(key ^ u32(0xFFFFFFFF)))
    return bits(code, "float32")


@dataclass(frozen=True)
class Weighing:
    """How logits of one row become weights: e^((logit - max) * scale), or, where scale is 0, 1 for the largest.

    Args:
        floor: what weighs less is left out.
    """

    max: Expr
    scale: Expr
    floor: Expr

    @classmethod
    def of(cls, settings: Span, known: Span, row: Expr, *, floor: bool = True) -> Weighing:
        first = let(row * SETTINGS)
        scale = bits(settings.at(first + SCALE), "float32")
        least = bits(settings.at(first + MIN_P), "float32") if floor else f32(0.0)
        return cls(known.at(row * KNOWN + MAX), scale, least)

    def weight(self, value: Expr) -> Expr:
        """0 for what is left out, and for what no float can say."""
        power = let((value - self.max) * self.scale)
        usual = select(power < f32(-87.0), f32(0.0), let(tirx.exp(tirx.max(power, f32(-87.0)))))
        greedy = select(value == self.max, f32(1.0), f32(0.0))
        found = held(select(self.scale == f32(0.0), greedy, usual))
        return held(select(found < self.floor, f32(0.0), found))


@dataclass(frozen=True)
class Threshold:
    """The last token that is kept: all that are more probable are, and the first `equals` of those as probable."""

    key: Expr
    equals: Expr  # float32
    weight: Expr  # of one of them

    @classmethod
    def of(cls, thresholds: Span, row: Expr, weighing: Weighing) -> Threshold:
        key = bits(thresholds.at(row * 2), "uint32")
        return cls(key, bits(thresholds.at(row * 2 + 1), "float32"), weighing.weight(value_of(key)))

    def split(self, value: Expr, weighing: Weighing) -> tuple[Expr, Expr]:
        """(the weight of a value that is surely kept, or 0; 1 for one that is as probable as the last)."""
        key, weight = key_of(value), weighing.weight(value)
        equal = let(tirx.And(key == self.key, weight > f32(0.0)))
        return select(key > self.key, weight, f32(0.0)), select(equal, f32(1.0), f32(0.0))

    def kept(self, sure: Expr, equal: Expr, seen: Expr) -> Expr:
        """The weight of a stretch of the row, before which `seen` were as probable as the last."""
        allowed = let(tirx.max(tirx.min(self.equals - seen, equal), f32(0.0)))
        return let(sure + allowed * self.weight)


@dataclass(frozen=True)
class Walk:
    """A walk along stretches of a row to where the weights reach a number.

    It ends with the stretch in `chosen` (-1: nothing has a weight), and how much is left to go within it.
    """

    places: Span  # int32: chosen, the last that has a weight
    numbers: Span  # float32: the rest, equals seen, those seen before the last

    @classmethod
    def begin(cls, rest: Expr) -> Walk:
        walk = cls(registers(2, "int32"), registers(3))
        walk.numbers.put(0, rest)
        walk.numbers.put(1, f32(0.0))
        return walk

    @property
    def chosen(self) -> Expr:
        return self.places.at(0)

    @property
    def rest(self) -> Expr:
        return self.numbers.at(0)

    @property
    def seen(self) -> Expr:
        return self.numbers.at(1)

    def along(self, count: int, threshold: Threshold, load: Callable[[Expr], tuple[Expr, Expr]]) -> None:
        """Walks over `count` stretches, of which `load` gives (what is surely kept, how many are as the last)."""
        for place in (0, 1):
            self.places.put(place, i32(-1))
        self.numbers.put(2, f32(0.0))
        with serial(count) as i:
            sure, equal = load(i)
            weight = threshold.kept(sure, equal, self.seen)
            branch(tirx.And(self.places.get(0) < 0, weight > f32(0.0)), lambda: self._meet(i, weight))
            branch(self.places.get(0) < 0, lambda: self.numbers.put(1, let(self.seen + equal)))
        branch(self.places.get(0) < 0, self._turn_back)

    def _meet(self, i: Expr, weight: Expr) -> None:
        self.places.put(1, i)
        self.numbers.put(2, self.seen)
        inside = let(self.rest < weight)
        branch(inside, lambda: self.places.put(0, i), lambda: self.numbers.put(0, let(self.rest - weight)))

    def _turn_back(self) -> None:
        """Rounding ate the last sliver."""
        self.places.put(0, self.places.at(1))
        self.numbers.put(0, f32(PLENTY))
        self.numbers.put(1, self.numbers.at(2))
