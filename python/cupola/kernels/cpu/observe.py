"""Sums of squares over rows: what calibration wants to know of a product's inputs."""

from __future__ import annotations

from tvm import tirx

from cupola.kernels.cpu.emit import LANES, Arg, Span, fma, kernel, let, parallel, region, registers, serial, size_var


def add_squares(width: int) -> tirx.PrimFunc:
    """(x float32[n, width], sums float32[width]): adds every row's squares to the sums. x stays as it is.

    Both are results, so that x, which the product takes, is not there before the sums are.
    """
    n = size_var("n")

    def body(x: Span, sums: Span) -> None:
        with region(), parallel(width // LANES) as block:
            first = let(block * LANES)
            total = registers(1, fill=sums.load(first))
            with serial(n) as row:
                value = x.load(row * width + first)
                total.put(0, fma(value, value, total.get(0)))
            sums.store(first, let(total.get(0)))

    return kernel("add_squares", {"x": Arg((n, width), "float32"), "sums": Arg((width,), "float32")}, body)
