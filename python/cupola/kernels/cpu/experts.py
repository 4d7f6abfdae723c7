"""Products of experts over the rows that use them, and the weighted sum of what they give.

The matrices of all experts lie one below the other in one packed matrix; only those of experts in use are read, each
once for all of its rows. The rows of an expert are found through the order that `routing` sorts pairs into, so that
nothing is copied together beforehand: a tile of rows takes its inputs from wherever they lie, and writes each result to
its pair. How a column block meets its rows is the dense products' business, and so is the order of additions: a pair's
result is the same bits whatever other rows there are.

The threads share runs of column blocks, the same run of every expert in turn, so that each has its share of every
expert, whether that is used by one row or by all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    TILED,
    Arg,
    Expr,
    Span,
    cast,
    f32,
    fma,
    kernel,
    let,
    parallel,
    region,
    serial,
    size_var,
    splat,
)
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear import input_args, product_of
from cupola.kernels.cpu.linear_finish import Sink
from cupola.kernels.cpu.linear_spec import LinearSpec, Rows
from cupola.quantize.layouts import OUT_BLOCK, packed_dtype, packed_shape

RUN_BYTES = 1 << 18  # of one expert's neighbouring blocks: memory is slow where a new piece begins
CHUNK = 512  # at most so many neighbouring outputs are combined at once


@dataclass(frozen=True)
class ExpertsSpec:
    """The products of one layer's experts.

    Args:
        each: the product of one expert; its outputs are whole column blocks.
        count, used: experts in all, and of one row.
        pairs: the input has a row for each pair; else one for each row of the step.
    """

    each: LinearSpec
    count: int
    used: int
    pairs: bool

    @property
    def tasks(self) -> int:
        """Runs of column blocks of one expert; of a gated product, blocks of gate and up."""
        blocks = self.each.blocks // (2 if self.each.gated else 1)
        shape, dtype = packed_shape(self.each.format, (OUT_BLOCK, self.each.inputs)), packed_dtype(self.each.format)
        block_bytes = int(np.prod(shape)) * dtype.itemsize * (2 if self.each.gated else 1)
        wanted = -(-blocks * block_bytes // RUN_BYTES)
        return next(tasks for tasks in range(min(wanted, blocks), blocks + 1) if blocks % tasks == 0)

    @property
    def run(self) -> int:
        """Column blocks of one task."""
        return self.each.blocks // (2 if self.each.gated else 1) // self.tasks


def linear_experts(spec: ExpertsSpec, isa: Isa) -> tirx.PrimFunc:
    """(x, or q and s; order[p], begins[count + 1], busy[count + 1]; w; b if biased) -> y[p, width].

    x has a row for each of the p pairs, or for each row of the step; the three vectors are those of `routing.route`.
    """
    each, count = spec.each, spec.count
    pairs, n = size_var("pairs"), size_var("n")
    args = input_args(each.format, pairs if spec.pairs else n, each.inputs)
    args |= {
        "order": Arg((pairs,), "int32"),
        "begins": Arg((count + 1,), "int32"),
        "busy": Arg((count + 1,), "int32"),
        "w": Arg(packed_shape(each.format, (count * each.outputs, each.inputs)), packed_dtype(each.format).name),
    }
    if each.bias:
        args["b"] = Arg((count * each.outputs,), "float32")
    args["y"] = Arg((pairs, each.width), "float32")

    def body(**spans: Span) -> None:
        with region():
            in_use = let(cast(spans["busy"].at(count), "int64"))
            with parallel(let(in_use * spec.tasks)) as task:
                run = let(tirx.floordiv(task, in_use))
                expert = let(cast(spans["busy"].at(tirx.floormod(task, in_use)), "int64"))
                _run(spec, isa, spans, expert, let(run * spec.run))

    return kernel(each.name.replace("linear", "experts"), args, body).with_attr(TILED, True)


def _run(spec: ExpertsSpec, isa: Isa, spans: dict[str, Span], expert: Expr, first: Expr) -> None:
    """The column blocks of one task, for all pairs of an expert."""
    each = spec.each
    begin = let(cast(spans["begins"].at(expert), "int64"))
    count = let(cast(spans["begins"].at(expert + 1), "int64") - begin)

    def pair(row: Expr) -> Expr:
        return cast(spans["order"].at(begin + row), "int64")

    def source(row: Expr) -> Expr:
        return pair(row) if spec.pairs else let(tirx.floordiv(pair(row), spec.used))

    block_product = product_of(each, isa, Rows(count, source), spans)
    sink = Sink(each, spans, pair, let(expert * each.outputs))
    first_block = let(expert * each.blocks)
    with serial(spec.run) as i:
        block = let(first + i)
        if each.gated:
            with serial(2) as up:
                block_product(let(first_block + block + up * (each.blocks // 2)), sink.gate(block, up))
        else:
            block_product(let(first_block + block), sink.store(block))


@dataclass(frozen=True)
class CombineSpec:
    """The weighted sum of what a row's experts gave.

    Args:
        width: outputs.
        used: experts of a row.
        shared: behind a row's weights stands that of the shared network.
        scale: a factor on the sum.
        residual: there is a tensor to add it to.
    """

    width: int
    used: int
    shared: bool = False
    scale: float = 1.0
    residual: bool = False


def combine(spec: CombineSpec) -> tirx.PrimFunc:
    """(z[n * used, width], weights[n, used (+ 1)], shared[n, width] and r[n, width] where there are such) -> y."""
    n, pairs = size_var("n"), size_var("pairs")
    width, stride = spec.width, spec.used + spec.shared
    chunks = next(c for c in range(-(-width // CHUNK), width) if width % (c * LANES) == 0)
    args = {"z": Arg((pairs, width), "float32"), "weights": Arg((n, stride), "float32")}
    rows = Arg((n, width), "float32")
    args |= {"shared": rows} if spec.shared else {}
    args |= {"r": rows} if spec.residual else {}

    def body(z: Span, weights: Span, y: Span, shared: Span | None = None, r: Span | None = None) -> None:
        with region(), parallel(n * chunks) as task:
            row = let(tirx.floordiv(task, chunks))
            first = let(tirx.floormod(task, chunks) * (width // chunks))
            factors = [splat(weights.at(row * stride + j)) for j in range(stride)]
            with serial(width // chunks // LANES) as j:
                at = let(first + j * LANES)
                values = [z.load((row * spec.used + pair) * width + at) for pair in range(spec.used)]
                if shared is not None:
                    values.append(shared.load(row * width + at))
                total = _weighted(factors, values)
                if r is not None:
                    total = fma(total, splat(f32(spec.scale)), r.load(row * width + at))
                elif spec.scale != 1:
                    total = let(total * splat(f32(spec.scale)))
                y.store(row * width + at, total)

    return kernel("combine_experts", args | {"y": rows}, body)


def _weighted(factors: Sequence[Expr], values: Sequence[Expr]) -> Expr:
    """The sum of products, in their order."""
    total = let(factors[0] * values[0])
    for factor, value in zip(factors[1:], values[1:], strict=True):
        total = fma(factor, value, total)
    return total
