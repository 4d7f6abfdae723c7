"""Activations on their way into a matrix product: RMSNorm, and dynamic quantization to int8.

A quantized row of K values is int8[K] and, for each group of 32, two float32: the scale d = max|x| / 127, and the sum
of the group's integers, which multiplies what all weights of the group have in common.
"""

from __future__ import annotations

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
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


def rms_norm(width: int, eps: float) -> tirx.PrimFunc:
    """y[n, K] = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, 2019)."""
    n = size_var("n")

    def body(x: Span, weight: Span, y: Span) -> None:
        def row(i: Expr) -> None:
            base = let(i * width)
            inverse = _inverse_rms(x, base, width, eps)
            with serial(width // LANES) as j:
                scaled = let(x.load(base + j * LANES) * inverse)
                y.store(base + j * LANES, let(scaled * weight.load(j * LANES)))

        for_each_row(n, row)

    args = {"x": Arg((n, width), "float32"), "weight": Arg((width,), "float32"), "y": Arg((n, width), "float32")}
    return kernel("rms_norm", args, body)


def quantize(width: int, eps: float | None) -> tirx.PrimFunc:
    """(q int8[n, K], s float32[n, K/32, 2]) of x[n, K]; with `eps`, of the RMSNorm of x."""
    n = size_var("n")

    def body(x: Span, q: Span, s: Span, weight: Span | None = None) -> None:
        def row(i: Expr) -> None:
            base = let(i * width)
            inverse = _inverse_rms(x, base, width, eps) if eps is not None else None
            with serial(width // GROUP) as group:
                values = []
                for part in range(GROUP // LANES):
                    offset = group * GROUP + part * LANES
                    value = x.load(base + offset)
                    if weight is not None:
                        value = let(let(value * inverse) * weight.load(offset))
                    values.append(value)
                quantize_group(values, q, base + group * GROUP, s, let((base // GROUP + group) * 2))

        for_each_row(n, row)

    args = {"x": Arg((n, width), "float32")}
    if eps is not None:
        args["weight"] = Arg((width,), "float32")
    args["q"] = Arg((n, width), "int8")
    args["s"] = Arg((n, width // GROUP, 2), "float32")
    return kernel("quantize" if eps is None else "norm_quantize", args, body)


def _inverse_rms(x: Span, base: Expr, width: int, eps: float) -> Expr:
    """1 / sqrt(mean(x^2) + eps) of one row, in all lanes."""
    squares = registers(1, fill=splat(f32(0.0)))
    with serial(width // LANES) as j:
        v = x.load(base + j * LANES)
        squares.put(0, fma(v, v, squares.get(0)))
    mean = let(sum_lanes(let(squares.get(0))) * f32(1.0 / width))
    return splat(let(f32(1.0) / tirx.sqrt(mean + f32(eps))))


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
