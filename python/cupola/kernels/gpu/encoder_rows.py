"""Rows of an encoder on a GPU: those of its tables, summed and normed; norms behind residuals; functions of what a
product gives; one vector out of the rows of a sequence, and what a classifier makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, cast, f32, let
from cupola.kernels.gpu.emit import (
    block_sum,
    ceildiv,
    kernel,
    launch,
    madd,
    read,
    registers,
    serial,
    shared,
    size_var,
    split,
    u32,
    write,
    zero,
)
from cupola.kernels.gpu.functions import FUNCTIONS
from cupola.kernels.gpu.norm import NormSpec, norm_row
from cupola.kernels.gpu.weights import half_to_float
from cupola.quantize.formats import Format
from cupola.quantize.layouts import words_dtype

THREADS = 128
SMALLEST_NORM = 1e-12  # torch.nn.functional.normalize's


@dataclass(frozen=True)
class Embed:
    """The tables of an encoder, which are plain rows.

    Args:
        norm: of the sum.
        words: the format of the table of words, f32 or f16 (two in a word of 32 bits); the others are float32.
        vocabulary, positions, types: rows of the tables; 0: there is none.
        first_position: the row of position 0 (RoBERTa keeps two for padding).
        half: the device's code can name float16.
    """

    norm: NormSpec
    words: Format
    vocabulary: int
    positions: int
    types: int
    first_position: int
    half: bool

    def word(self, words: Span, row: Expr, at: Expr) -> Expr:
        """One value of the table of words; `row` is its first value."""
        if self.words is Format.F32:
            return words.at(row + at)
        word, high = split(let(row + at), 2)
        code = let((words.at(word) >> cast(high * 16, "uint32")) & u32(0xFFFF))
        return half_to_float(code, self.half)


def table_width(fmt: Format, width: int) -> int:
    """Elements of a row of a table of words."""
    return width if fmt is Format.F32 else width // 2


def embed(spec: Embed, most_threads: int) -> tirx.PrimFunc:
    """norm(words[ids] + types[kinds] + places[at]): float32 [n, width]; only words need be there."""
    n, width, threads = size_var("n"), spec.norm.width, spec.norm.threads(most_threads)

    def body(
        ids: Span,
        words: Span,
        weight: Span,
        y: Span,
        at: Span | None = None,
        places: Span | None = None,
        kinds: Span | None = None,
        types: Span | None = None,
        bias: Span | None = None,
    ) -> None:
        with launch(threads, n) as block:
            row = block.x
            word, base = let(ids.at(row) * width), let(row * width)
            more: list[tuple[Span, Expr]] = []
            if kinds is not None and types is not None:
                more.append((types, let(kinds.at(row) * width)))
            if at is not None and places is not None:
                more.append((places, let((at.at(row) + spec.first_position) * width)))

            def summed(k: Expr) -> Expr:
                value = spec.word(words, word, k)
                for table, first in more:
                    value = let(value + table.at(first + k))
                return value

            def store(k: Expr, value: Expr) -> None:
                y.put(base + k, value)

            norm_row(block, shared(threads), spec.norm, summed, weight, bias, store)

    table = Arg((spec.vocabulary, table_width(spec.words, width)), words_dtype(spec.words).name)
    args = {"ids": Arg((n,), "int32"), "words": table}
    if spec.positions:
        args |= {"at": Arg((n,), "int32"), "places": Arg((spec.positions, width), "float32")}
    if spec.types:
        args |= {"kinds": Arg((n,), "int32"), "types": Arg((spec.types, width), "float32")}
    return kernel("encoder_embed", args | spec.norm.args | {"y": Arg((n, width), "float32")}, body)


def norm_biased(norm: NormSpec, x: str, z: str | None, most_threads: int, biased: bool) -> tirx.PrimFunc:
    """norm(x + added): (x[n, K], added float32[K] if biased, weight, bias if there is one) -> y float32[n, K], and the
    same as z[n, K] of another type if there is one."""
    n, width, threads = size_var("n"), norm.width, norm.threads(most_threads)

    def body(
        x: Span, weight: Span, y: Span, z: Span | None = None, added: Span | None = None, bias: Span | None = None
    ) -> None:
        with launch(threads, n) as block:
            base = let(block.x * width)

            def load(at: Expr) -> Expr:
                value = read(x, base + at)
                return value if added is None else let(value + added.at(at))

            def store(at: Expr, value: Expr) -> None:
                y.put(base + at, value)
                if z is not None:
                    write(z, base + at, value)

            norm_row(block, shared(threads), norm, load, weight, bias, store)

    args = {"x": Arg((n, width), x), **({"added": Arg((width,), "float32")} if biased else {}), **norm.args}
    args |= {"y": Arg((n, width), "float32"), **({} if z is None else {"z": Arg((n, width), z)})}
    return kernel("layer_norm", args, body)


def activate(width: int, function: str, dtype: str) -> tirx.PrimFunc:
    """function(x + bias): (x[n, width], bias float32[width]) -> [n, width] of the same type."""
    n = size_var("n")

    def body(x: Span, bias: Span, y: Span) -> None:
        with launch(THREADS, n, ceildiv(width, THREADS)) as block:
            # A last block that has too little to do does the last element again.
            k = let(tirx.min(block.y * THREADS + block.thread, width - 1))
            at = let(block.x * width + k)
            write(y, at, FUNCTIONS[function](let(read(x, at) + bias.at(k))))

    rows = Arg((n, width), dtype)
    return kernel(function, {"x": rows, "bias": Arg((width,), "float32"), "y": rows}, body)


def pool(width: int, how: str, normalize: bool) -> tirx.PrimFunc:
    """(x float32[n, width], q_indptr int32[b + 1]) -> float32[b, width]: the mean, first or last row of each sequence.

    Args:
        how: mean, cls (the first) or last.
        normalize: to length 1.
    """
    n, b1, b = size_var("n"), size_var("b1"), size_var("b")

    def body(x: Span, q_indptr: Span, y: Span) -> None:
        with launch(THREADS, b) as block:
            first, stop = q_indptr.at(block.x), q_indptr.at(block.x + 1)
            if how == "cls":
                stop = let(first + 1)
            elif how == "last":
                first = let(stop - 1)
            base, squares = let(block.x * width), registers(1, fill=zero())
            share = let(f32(1.0) / cast(stop - first, "float32"))

            def component(k: Expr) -> None:
                total = registers(1, fill=zero())
                with serial(stop - first) as i:
                    total.put(0, let(total.at(0) + x.at((first + i) * width + k)))
                mean = let(total.at(0) * share)
                y.put(base + k, mean)
                squares.put(0, madd(mean, mean, squares.at(0)))

            block.each(width, component)
            if normalize:
                length = let(tirx.sqrt(block_sum(block, shared(THREADS), squares.at(0))))
                inverse = let(f32(1.0) / tirx.max(length, f32(SMALLEST_NORM)))
                block.each(width, lambda k: y.put(base + k, let(y.at(base + k) * inverse)))

    args = {"x": Arg((n, width), "float32"), "q_indptr": Arg((b1,), "int32"), "y": Arg((b, width), "float32")}
    return kernel(f"pool_{how}", args, body)


def project(width: int, outputs: int, dtype: str) -> tirx.PrimFunc:
    """x W^T + bias: (x[b, width], w float32[outputs, width], bias[outputs]) -> float32[b, outputs]; for few outputs."""
    b = size_var("b")

    def body(x: Span, w: Span, bias: Span, y: Span) -> None:
        with launch(THREADS, b, outputs) as block:
            row, weights, mine = let(block.x * width), let(block.y * width), registers(1, fill=zero())
            block.each(width, lambda k: mine.put(0, madd(read(x, row + k), w.at(weights + k), mine.at(0))))
            total = block_sum(block, shared(THREADS), mine.at(0))
            y.put(block.x * outputs + block.y, let(total + bias.at(block.y)))

    args = {
        "x": Arg((b, width), dtype),
        "w": Arg((outputs, width), "float32"),
        "bias": Arg((outputs,), "float32"),
        "y": Arg((b, outputs), "float32"),
    }
    return kernel("project", args, body)
