"""Activations on their way into a matrix product: norms, and dynamic quantization to int8.

A quantized row of K values is int8[K] and, for each group of 32, two float32: the scale d = max|x| / 127, and the sum
of the group's integers, which multiplies what all weights of the group have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tvm import tirx

from cupola.kernels.cpu import wide
from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
    Index,
    Span,
    cast,
    f32,
    fma,
    for_each_row,
    kernel,
    let,
    max_lanes,
    registers,
    select,
    serial,
    size_var,
    splat,
    sum_lanes,
)
from cupola.quantize.formats import GROUP

Load = Callable[[Expr], Expr]  # offset in the row -> eight values
Codes: TypeAlias = Literal["int8", "int16"] | None  # the integers that the following product takes; None: floats


@dataclass(frozen=True)
class NormSpec:
    """A norm of rows: RMSNorm (Zhang and Sennrich, 2019), or LayerNorm where it is `centered` (Ba et al., 2016)."""

    eps: float
    centered: bool = False
    bias: bool = False


def normed(width: int, norm: NormSpec, codes: Codes) -> tirx.PrimFunc:
    """(x[n, K], weight[K], bias[K] if there is one) -> float32[n, K], or (q, s)."""
    n = size_var("n")

    def body(
        x: Span,
        weight: Span,
        y: Span | None = None,
        q: Span | None = None,
        s: Span | None = None,
        bias: Span | None = None,
    ) -> None:
        def row(i: Expr) -> None:
            base = let(i * width)
            value = norm_row(width, norm, lambda at: x.load(base + at), weight, bias)
            if q is not None and s is not None:
                quantize_row(codes, width, value, q, s, base)
            elif y is not None:
                with serial(width // LANES) as j:
                    y.store(base + j * LANES, value(j * LANES))

        for_each_row(n, row)

    args = {"x": Arg((n, width), "float32"), **norm_vectors(width, norm)}
    return kernel("norm_quantize" if codes else "norm", args | row_args(codes, n, width), body)


def add_normed(width: int, norm: NormSpec) -> tirx.PrimFunc:
    """x + norm(y): (x[n, K], y[n, K], weight[K], bias[K] if there is one) -> float32[n, K]."""
    n = size_var("n")

    def body(x: Span, y: Span, weight: Span, z: Span, bias: Span | None = None) -> None:
        def row(i: Expr) -> None:
            base = let(i * width)
            value = norm_row(width, norm, lambda at: y.load(base + at), weight, bias)
            with serial(width // LANES) as j:
                z.store(base + j * LANES, let(x.load(base + j * LANES) + value(j * LANES)))

        for_each_row(n, row)

    rows = Arg((n, width), "float32")
    return kernel("add_normed", {"x": rows, "y": rows, **norm_vectors(width, norm), "z": rows}, body)


def quantize(width: int, codes: Codes = "int8") -> tirx.PrimFunc:
    """x[n, K] -> (q, s): int8[n, K] and float32[n, K/32, 2], or int16[n, K] and float32[n, K/32]."""
    n = size_var("n")

    def body(x: Span, q: Span, s: Span) -> None:
        def row(i: Expr) -> None:
            base = let(i * width)
            quantize_row(codes, width, lambda at: x.load(base + at), q, s, base)

        for_each_row(n, row)

    return kernel("quantize", {"x": Arg((n, width), "float32"), **row_args(codes, n, width)}, body)


def norm_vectors(width: int, norm: NormSpec) -> dict[str, Arg]:
    """The vectors that a kernel takes for a norm."""
    names = ("weight", "bias") if norm.bias else ("weight",)
    return {name: Arg((width,), "float32") for name in names}


def row_args(codes: Codes, n: Expr, width: int) -> dict[str, Arg]:
    """The results of a kernel that leaves n rows to a product."""
    if codes is None:
        return {"y": Arg((n, width), "float32")}
    if codes == "int16":
        return wide.row_args(n, width)
    return {"q": Arg((n, width), "int8"), "s": Arg((n, width // GROUP, 2), "float32")}


def norm_row(width: int, norm: NormSpec, x: Load, weight: Span, bias: Span | None = None, *, first: Index = 0) -> Load:
    """The values of a row behind a norm, given those before it; reads the row once or twice at once.

    Args:
        first: where the row's weights begin.
    """
    mean = _mean(width, x) if norm.centered else None

    def centred(at: Expr) -> Expr:
        return x(at) if mean is None else let(x(at) - mean)

    def square(at: Expr, sums: Expr) -> Expr:
        v = centred(at)
        return fma(v, v, sums)

    variance = let(_sum(width, square) * f32(1.0 / width))
    inverse = splat(let(f32(1.0) / tirx.sqrt(variance + f32(norm.eps))))

    def value(at: Expr) -> Expr:
        scaled = let(centred(at) * inverse)
        if bias is None:
            return let(scaled * weight.load(first + at))
        return fma(scaled, weight.load(first + at), bias.load(first + at))

    return value


def _mean(width: int, x: Load) -> Expr:
    return splat(let(_sum(width, lambda at, sums: let(sums + x(at))) * f32(1.0 / width)))


def _sum(width: int, add: Callable[[Expr, Expr], Expr]) -> Expr:
    """The sum over a row: `add(offset, sums)` adds the eight values there."""
    sums = registers(1, fill=splat(f32(0.0)))
    with serial(width // LANES) as j:
        sums.put(0, add(let(j * LANES), sums.get(0)))
    return sum_lanes(let(sums.get(0)))


def quantize_row(codes: Codes, width: int, value: Load, q: Span, s: Span, base: Expr) -> None:
    """Quantizes the row whose values `value` gives to q from `base` on."""
    if codes == "int16":
        wide.quantize_row(width, value, q, s, base)
        return
    with serial(width // GROUP) as group:
        values = [value(let(group * GROUP + part * LANES)) for part in range(GROUP // LANES)]
        quantize_group(values, q, base + group * GROUP, s, let((base // GROUP + group) * 2))


def quantize_group(values: list[Expr], q: Span, q_offset: Expr, s: Span, s_offset: Expr) -> None:
    """Quantizes 32 values, given as four vectors."""
    a, b, c, d = (let(tirx.abs(v)) for v in values)
    largest = max_lanes(let(tirx.max(tirx.max(a, b), tirx.max(c, d))))
    inverse = splat(select(largest > f32(0.0), let(f32(127.0) / largest), f32(0.0)))
    integers = [cast(let(tirx.nearbyint(let(v * inverse))), "int32x8") for v in values]
    for part, integer in enumerate(integers):
        q.store(q_offset + part * LANES, cast(integer, "int8x8"))
    total = sum_lanes(let((integers[0] + integers[1]) + (integers[2] + integers[3])))
    s.put(s_offset, let(largest * f32(1.0 / 127.0)))
    s.put(s_offset + 1, cast(total, "float32"))
