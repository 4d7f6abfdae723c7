"""The two ends of an encoder: rows of its tables, summed and normed; one vector out of the rows of a sequence, and what
a classifier makes of it."""

from __future__ import annotations

from dataclasses import dataclass

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
    registers,
    serial,
    size_var,
    splat,
    sum_lanes,
)
from cupola.kernels.cpu.layer_norm import norm_into

SMALLEST_NORM = 1e-12  # torch.nn.functional.normalize's


@dataclass(frozen=True)
class EmbedSpec:
    """The tables of an encoder, which are plain rows.

    Args:
        width: of a row.
        vocabulary, positions, types: rows of the tables; 0: there is none.
        first_position: the row of position 0 (RoBERTa keeps two for padding).
        word_dtype: of the table of words; the others are float32.
        eps: of the layer norm of the sum.
        shifted: that norm adds a vector.
    """

    width: int
    vocabulary: int
    positions: int
    types: int
    first_position: int
    word_dtype: str
    eps: float
    shifted: bool = True


def embed(spec: EmbedSpec) -> tirx.PrimFunc:
    """LayerNorm(words[ids] + types[types] + positions[positions]): float32 [n, width]; only words need be there."""
    n, width = size_var("n"), spec.width

    def body(
        ids: Span,
        words: Span,
        weight: Span,
        y: Span,
        at: Span | None = None,
        places: Span | None = None,
        kinds: Span | None = None,
        types: Span | None = None,
        shift: Span | None = None,
    ) -> None:
        def row(i: Expr) -> None:
            word = let(cast(ids.at(i), "int64") * width)
            more: list[tuple[Span, Expr]] = []
            if kinds is not None and types is not None:
                more.append((types, let(cast(kinds.at(i), "int64") * width)))
            if at is not None and places is not None:
                more.append((places, let((cast(at.at(i), "int64") + spec.first_position) * width)))

            def summed(c: Expr) -> Expr:
                value = cast(words.load(word + c), f"float32x{LANES}")
                for table, base in more:
                    value = let(value + table.load(base + c))
                return value

            norm_into(width, spec.eps, summed, weight, shift, y, let(i * width))

        for_each_row(n, row)

    args = {"ids": Arg((n,), "int32"), "words": Arg((spec.vocabulary, width), spec.word_dtype)}
    if spec.positions:
        args |= {"at": Arg((n,), "int32"), "places": Arg((spec.positions, width), "float32")}
    if spec.types:
        args |= {"kinds": Arg((n,), "int32"), "types": Arg((spec.types, width), "float32")}
    args["weight"] = Arg((width,), "float32")
    if spec.shifted:
        args["shift"] = Arg((width,), "float32")
    return kernel("encoder_embed", args | {"y": Arg((n, width), "float32")}, body)


def pool(width: int, how: str, normalize: bool) -> tirx.PrimFunc:
    """(x float32[n, width], q_indptr int32[b + 1]) -> float32[b, width]: the mean, first or last row of each sequence.

    Args:
        how: mean, cls (the first) or last.
        normalize: to length 1.
    """
    n, b1, b = size_var("n"), size_var("b1"), size_var("b")

    def body(x: Span, q_indptr: Span, y: Span) -> None:
        def sequence(s: Expr) -> None:
            first, stop = cast(q_indptr.at(s), "int64"), cast(q_indptr.at(s + 1), "int64")
            if how == "cls":
                stop = let(first + 1)
            elif how == "last":
                first = let(stop - 1)
            out = let(s * width)
            squares = registers(1, fill=splat(f32(0.0)))
            share = splat(let(f32(1.0) / cast(stop - first, "float32")))
            with serial(width // LANES) as c:
                total = registers(1, fill=splat(f32(0.0)))
                with serial(stop, start=first) as row:
                    total.put(0, let(total.get(0) + x.load(row * width + c * LANES)))
                mean = let(total.get(0) * share)
                y.store(out + c * LANES, mean)
                squares.put(0, fma(mean, mean, squares.get(0)))
            if normalize:
                norm = let(tirx.max(tirx.sqrt(sum_lanes(let(squares.get(0)))), f32(SMALLEST_NORM)))
                inverse = splat(let(f32(1.0) / norm))
                with serial(width // LANES) as c:
                    y.store(out + c * LANES, let(y.load(out + c * LANES) * inverse))

        for_each_row(b, sequence)

    args = {"x": Arg((n, width), "float32"), "q_indptr": Arg((b1,), "int32"), "y": Arg((b, width), "float32")}
    return kernel(f"pool_{how}", args, body)


def project(width: int, outputs: int) -> tirx.PrimFunc:
    """x W^T + bias in float32: (x[b, width], w[outputs, width], bias[outputs]) -> [b, outputs]; for few outputs."""
    b = size_var("b")

    def body(x: Span, w: Span, bias: Span, y: Span) -> None:
        def row(i: Expr) -> None:
            with serial(outputs) as o:
                sums = registers(1, fill=splat(f32(0.0)))
                with serial(width // LANES) as c:
                    left, right = x.load(i * width + c * LANES), w.load(o * width + c * LANES)
                    sums.put(0, fma(left, right, sums.get(0)))
                y.put(i * outputs + o, let(sum_lanes(let(sums.get(0))) + bias.at(o)))

        for_each_row(b, row)

    args = {
        "x": Arg((b, width), "float32"),
        "w": Arg((outputs, width), "float32"),
        "bias": Arg((outputs,), "float32"),
        "y": Arg((b, outputs), "float32"),
    }
    return kernel("project", args, body)
