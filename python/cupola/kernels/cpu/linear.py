"""Matrix products y[n, N] = x[n, K] W[N, K]^T over packed weights, from one row to thousands.

The threads share the column blocks (16 outputs each), and every block's weights are read from memory once for all rows.
How a block meets its rows depends on how many there are, which is known only at run time:

    one row            unpack in registers, multiply, done: the speed of memory
    a few rows         the same, two rows at a time; the block stays in the L1 cache between them
    many rows (4 bits) unpack the block once into scratch, then tiles of four rows

A row's arithmetic is the same sequence of operations on every one of these roads, so its result does not depend, to the
bit, on how many rows travel with it.
"""

from __future__ import annotations

from tvm import tirx

from cupola.kernels.cpu.emit import (
    Arg,
    Expr,
    Span,
    branch,
    f32,
    i32,
    i64,
    kernel,
    lanes_of,
    let,
    parallel,
    region,
    serial,
    size_var,
    splat,
)
from cupola.kernels.cpu.functions import FUNCTIONS, soft_cap
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear_float import float_product
from cupola.kernels.cpu.linear_integer import q4_product, q8_product
from cupola.kernels.cpu.linear_spec import BlockProduct, Finish, LinearSpec, Product, Rows
from cupola.kernels.cpu.wide import q16_product, row_args
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import OUT_BLOCK, packed_dtype, packed_shape


def linear(spec: LinearSpec, isa: Isa) -> tirx.PrimFunc:
    """Emits the product. Arguments: x (f32) or q, s (see `activation`); w; b when biased; r when residual; y."""
    n = size_var("n")
    args = input_args(spec.format, n, spec.inputs)
    args["w"] = Arg(packed_shape(spec.format, (spec.outputs, spec.inputs)), packed_dtype(spec.format).name)
    if spec.bias:
        args["b"] = Arg((spec.outputs,), "float32")
    if spec.residual:
        args["r"] = Arg((n, spec.width), "float32")
    args["y"] = Arg((n, spec.width), "float32")

    def body(**spans: Span) -> None:
        block_product = product_of(spec, isa, Rows(n), spans)
        with region():
            if spec.gated:
                with parallel(spec.blocks // 2) as block, serial(2) as up:
                    block_product(let(block + up * (spec.blocks // 2)), _gate(spec, spans, block, up))
            else:
                with parallel(spec.blocks) as block:
                    block_product(block, _store(spec, spans, block))

    return kernel(spec.name, args, body)


def input_args(fmt: Format, rows: Expr, width: int) -> dict[str, Arg]:
    """The input of a product with weights of this format: `rows` rows of `width` values."""
    if fmt.grouped:
        return {"q": Arg((rows, width), "int8"), "s": Arg((rows, width // GROUP, 2), "float32")}
    if fmt is Format.Q16:
        return row_args(rows, width)
    return {"x": Arg((rows, width), "float32")}


def product_of(spec: LinearSpec, isa: Isa, rows: Rows, spans: dict[str, Span]) -> BlockProduct:
    """The way of computing a product that its format asks for."""
    return _PRODUCTS[spec.format](spec, isa, rows, spans)


# What becomes of the sums


def _store(spec: LinearSpec, spans: dict[str, Span], block: Expr) -> Finish:
    def finish(row: Expr, part: int, sums: Expr) -> None:
        lanes = lanes_of(sums)
        at = let(row * spec.width + block * OUT_BLOCK + part * lanes)
        y = _biased(spec, spans, block, part, sums)
        if spec.function is not None:
            y = FUNCTIONS[spec.function](y)
        if spec.scale != 1:
            y = let(y * splat(f32(spec.scale), lanes))
        if spec.residual:
            y = let(y + spans["r"].load(at, lanes))
        spans["y"].store(at, soft_cap(y, spec.cap) if spec.cap else y)

    return finish


def _gate(spec: LinearSpec, spans: dict[str, Span], block: Expr, up: Expr) -> Finish:
    """The gate's sums (up is 0) wait in y for those of the up projection (up is 1)."""
    y = spans["y"]
    function = FUNCTIONS[spec.function or "silu"]

    def finish(row: Expr, part: int, sums: Expr) -> None:
        lanes = lanes_of(sums)
        at = let(row * spec.width + block * OUT_BLOCK + part * lanes)
        value = _biased(spec, spans, let(block + up * (spec.blocks // 2)), part, sums)
        branch(
            up < 1,
            lambda: y.store(at, value),
            lambda: y.store(at, let(function(y.load(at, lanes)) * value)),
        )

    return finish


def _biased(spec: LinearSpec, spans: dict[str, Span], block: Expr, part: int, sums: Expr) -> Expr:
    """The sums with the bias of their outputs. The last block of a matrix may be wider than the bias is."""
    if not spec.bias:
        return sums
    lanes, b = lanes_of(sums), spans["b"]
    first = let(block * OUT_BLOCK + part * lanes)
    if spec.outputs % OUT_BLOCK == 0:
        return let(sums + b.load(first, lanes))
    last = spec.outputs - 1
    values = [b.at(let(tirx.min(first + lane, i64(last)))) for lane in range(lanes)]
    return let(sums + let(tirx.Shuffle(values, [i32(lane) for lane in range(lanes)])))


_PRODUCTS: dict[Format, Product] = {
    Format.F32: float_product,
    Format.F16: float_product,
    Format.BF16: float_product,
    Format.Q16: q16_product,
    Format.Q8: q8_product,
    Format.Q4: q4_product,
    Format.Q4S: q4_product,
}
