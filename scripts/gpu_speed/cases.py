"""What is measured: decodes of some streams, prompts of some length, and what bounds both. It knows no device."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from cupola.manifest import Manifest

CONTEXT = 128  # tokens of a stream's prompt
STEPS = 128  # tokens that a stream then generates

# Bits of a weight by its format, scales included.
_BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8": 8.5, "q4": 5.0, "q3": 3.75}


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is timed.

    Args:
        kind: decode (a step of `count` streams) or prefill (a prompt of `count` tokens, up to its first new token).
        steps: of a decode; what is reported is the time of one.
    """

    kind: str
    count: int
    steps: int = STEPS

    @property
    def name(self) -> str:
        return f"{self.kind} {self.count}"

    @property
    def streams(self) -> int:
        return self.count if self.kind == "decode" else 1

    @property
    def tokens(self) -> int:
        """Of a stream in the end, one more that a page may have to take included."""
        return CONTEXT + self.steps + 2 if self.kind == "decode" else self.count + 2


@dataclass(frozen=True, slots=True)
class Work:
    """What a model has to move and to compute: bytes of weights, bytes of a token's pages, multiplications of a token
    (of the layers, and of the head), and what attention multiplies for each pair of tokens."""

    weight_bytes: float
    token_bytes: float
    layer_products: float
    pair_products: float

    @classmethod
    def of(cls, manifest: Manifest) -> Work:
        """The token table is not read as a whole, and counts for nothing."""
        shape, kv_cache = manifest.shape, manifest.kv_cache
        used = [weight for weight in manifest.weights if weight.name != "embedding.weight"]
        layers = [weight for weight in used if weight.name != "head.weight" and weight.format in _BITS]
        return cls(
            weight_bytes=sum(weight.bytes for weight in used),
            token_bytes=kv_cache.bytes_of(shape.num_layers, 1, 1) / kv_cache.page_size,
            layer_products=sum(weight.bytes * 8 / _BITS[weight.format] for weight in layers),
            pair_products=2.0 * shape.num_heads * shape.head_dim * shape.num_layers,
        )

    def seconds(self, case: Case, bytes_per_second: float, flops: float) -> float:
        """The least time: of a decode at this bandwidth, of a prompt at this rate of matrix products."""
        if case.kind == "decode":
            tokens = case.count * (CONTEXT + case.steps / 2)
            return (self.weight_bytes + tokens * self.token_bytes) / bytes_per_second
        n = case.count
        return 2 * (n * self.layer_products + n * n / 2 * self.pair_products) / flops


@dataclass(slots=True)
class Figures:
    """Seconds of all rounds, by contender and case; and what was not measured, and why."""

    rounds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, contender: str, name: str, seconds: float) -> None:
        self.rounds.setdefault(contender, {}).setdefault(name, []).append(seconds)

    def median(self, contender: str, name: str) -> float | None:
        found = self.rounds.get(contender, {}).get(name)
        return statistics.median(found) if found else None


@dataclass(frozen=True, slots=True)
class Roofline:
    """What the device reached in this run: bytes copied a second (read and written counted), flops of matrix products,
    and with what these were measured."""

    bytes_per_second: float
    flops: float
    matrix_by: str


def record(
    device: str, shape: str, roofline: Roofline, work: Mapping[str, Work], figures: Figures
) -> dict[str, object]:
    """All of it as JSON."""
    return {
        "device": device,
        "shape": shape,
        "roofline": asdict(roofline),
        "work": {contender: asdict(one) for contender, one in work.items()},
        "seconds": figures.rounds,
        "missing": figures.missing,
    }


def table(cases: Sequence[Case], roofline: Roofline, work: Mapping[str, Work], figures: Figures) -> str:
    """Markdown: medians in milliseconds, each with its share of the roofline where there is one."""
    names = list(figures.rounds)
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for case in cases:
        cells = [_cell(case, roofline, work.get(name), figures.median(name, case.name)) for name in names]
        lines.append(f"| {_words(case)} | " + " | ".join(cells) + " |")
    bounds = f"{roofline.bytes_per_second / 1e9:,.1f} GB/s copied, {roofline.flops / 1e12:.3g} TFLOP/s"
    lines += ["", f"The roofline, measured in the same run: {bounds} ({roofline.matrix_by})."]
    lines += [f"Not measured: {what}: {why}." for what, why in figures.missing.items()]
    return "\n".join(lines) + "\n"


def _words(case: Case) -> str:
    if case.kind == "decode":
        return f"a step of {case.count} stream{'s' * (case.count > 1)}"
    return f"a prompt of {case.count} tokens"


def _cell(case: Case, roofline: Roofline, work: Work | None, seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if work is None:
        return f"{seconds * 1e3:,.2f} ms"
    share = work.seconds(case, roofline.bytes_per_second, roofline.flops) / seconds
    return f"{seconds * 1e3:,.2f} ms ({share:.0%})"
