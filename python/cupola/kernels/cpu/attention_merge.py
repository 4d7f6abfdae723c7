"""Partial results of attention become one, block after block (Milakov and Gimelshein, 2018)."""

from __future__ import annotations

from tvm import tirx

from cupola.kernels.cpu.attention_block import MASKED
from cupola.kernels.cpu.attention_step import Part
from cupola.kernels.cpu.emit import LANES, Expr, Span, exp, f32, fma, i32, let, splat


def begin(dim: int, total: Part, query: Expr, sink: Expr | None = None) -> None:
    """The result before the first block: nothing, or the head's sink."""
    for c in range(dim // LANES):
        total.o.store(query * dim + c * LANES, splat(f32(0.0)))
    total.ml.put(query * 2, f32(MASKED) if sink is None else sink)
    total.ml.put(query * 2 + 1, f32(0.0 if sink is None else 1.0))


def merge(dim: int, into: Part, to: Expr, part: Part, query: Expr) -> None:
    """(m, l, o) of a part into the running one. A part that is masked throughout changes nothing, to the bit."""
    old, new = into.ml.at(to * 2), part.ml.at(query * 2)
    m = let(tirx.max(old, new))
    keep, add = exp(splat(let(old - m))), exp(splat(let(new - m)))
    sums = fma(splat(into.ml.at(to * 2 + 1)), keep, let(splat(part.ml.at(query * 2 + 1)) * add))
    into.ml.put(to * 2, m)
    into.ml.put(to * 2 + 1, tirx.Shuffle([sums], [i32(0)]))
    for c in range(dim // LANES):
        value = let(part.o.load(query * dim + c * LANES) * add)
        into.o.store(to * dim + c * LANES, fma(into.o.load(to * dim + c * LANES), keep, value))


def finish(dim: int, total: Part, query: Expr, y: Span, out: Expr) -> None:
    """Writes the weighted mean of the values to y."""
    inverse = splat(let(f32(1.0) / total.ml.at(query * 2 + 1)))
    for c in range(dim // LANES):
        y.store(out + c * LANES, let(total.o.load(query * dim + c * LANES) * inverse))
