"""Matrix products y[n, N] = x[n, K] W[N, K]^T over packed weights, from one row to thousands.

The threads share the column blocks (16 outputs each), and every block's weights are read from memory once for all rows.
How a block meets its rows depends on how many there are, which is known only at run time:

    one row            unpack in registers, multiply, done: the speed of memory
    a few rows         the same, two rows at a time; the block stays in the L1 cache between them
    many rows (3, 4 bits) unpack the block once into scratch, then tiles of four rows

A row's arithmetic is the same sequence of operations on every one of these roads, so its result does not depend, to the
bit, on how many rows travel with it.
"""

from __future__ import annotations

from tvm import tirx

from cupola.kernels.cpu.emit import TILED, Arg, Expr, Span, kernel, let, parallel, region, serial, size_var
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear_finish import Sink
from cupola.kernels.cpu.linear_float import float_product
from cupola.kernels.cpu.linear_integer import few_bits_product, q8_product
from cupola.kernels.cpu.linear_spec import BlockProduct, LinearSpec, Product, Rows
from cupola.kernels.cpu.wide import q16_product, row_args
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import packed_dtype, packed_shape


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
        block_product, sink = product_of(spec, isa, Rows(n), spans), Sink(spec, spans)
        with region():
            if spec.gated:
                with parallel(spec.blocks // 2) as block, serial(2) as up:
                    block_product(let(block + up * (spec.blocks // 2)), sink.gate(block, up))
            else:
                with parallel(spec.blocks) as block:
                    block_product(block, sink.store(block))

    return kernel(spec.name, args, body).with_attr(TILED, True)


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


_PRODUCTS: dict[Format, Product] = {
    Format.F32: float_product,
    Format.F16: float_product,
    Format.BF16: float_product,
    Format.Q16: q16_product,
    Format.Q8: q8_product,
    Format.Q4: few_bits_product,
    Format.Q4S: few_bits_product,
    Format.Q3: few_bits_product,
    Format.MXFP4: few_bits_product,
}
