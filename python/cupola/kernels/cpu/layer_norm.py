"""What happens to the activations of an encoder between its products: biases, layer norms, activation functions.

Products leave their biases to whoever reads their sums: that is here, in the pass that the sums go through anyway. Each
kernel ends in the form in which the following product wants its input, float32 or integers with scales
(`activation.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.activation import Codes, Load, NormSpec, norm_row, quantize_row, row_args
from cupola.kernels.cpu.emit import LANES, Arg, Expr, Span, for_each_row, kernel, let, serial, size_var
from cupola.kernels.cpu.functions import FUNCTIONS


@dataclass(frozen=True)
class LayerNormSpec:
    """LayerNorm (Ba et al., 2016).

    Args:
        biased: a product's bias is added to the row first.
        shifted: the norm adds a vector.
    """

    width: int
    eps: float
    biased: bool = True
    shifted: bool = True


def layer_norm(spec: LayerNormSpec, codes: Codes) -> tirx.PrimFunc:
    """LayerNorm(x + bias): (x[n, K], weight[K], bias[K], shift[K]) -> y[n, K], and quantized; vectors as `spec`."""
    n, width = size_var("n"), spec.width

    def body(
        x: Span,
        weight: Span,
        y: Span,
        bias: Span | None = None,
        shift: Span | None = None,
        q: Span | None = None,
        s: Span | None = None,
    ) -> None:
        def row(i: Expr) -> None:
            base = let(i * width)

            def value(at: Expr) -> Expr:
                return x.load(base + at) if bias is None else let(x.load(base + at) + bias.load(at))

            norm_into(width, spec.eps, value, weight, shift, y, base)
            if q is not None and s is not None:
                quantize_row(codes, width, lambda at: y.load(base + at), q, s, base)

        for_each_row(n, row)

    there = {"weight": True, "bias": spec.biased, "shift": spec.shifted}
    vectors = {name: Arg((width,), "float32") for name, has in there.items() if has}
    args = {"x": Arg((n, width), "float32"), **vectors, "y": Arg((n, width), "float32")}
    return kernel("layer_norm", args | (row_args(codes, n, width) if codes else {}), body)


def activate(width: int, function: str, codes: Codes) -> tirx.PrimFunc:
    """f(x + bias), with `function` one of FUNCTIONS: (x[n, K], bias[K]) -> float32[n, K], or (q, s)."""
    n = size_var("n")

    def body(x: Span, bias: Span, y: Span | None = None, q: Span | None = None, s: Span | None = None) -> None:
        def row(i: Expr) -> None:
            base = let(i * width)

            def value(at: Expr) -> Expr:
                return FUNCTIONS[function](let(x.load(base + at) + bias.load(at)))

            if q is not None and s is not None:
                quantize_row(codes, width, value, q, s, base)
            elif y is not None:
                with serial(width // LANES) as c:
                    y.store(base + c * LANES, value(let(c * LANES)))

        for_each_row(n, row)

    args = {"x": Arg((n, width), "float32"), "bias": Arg((width,), "float32")}
    return kernel(f"{function}_activation", args | row_args(codes, n, width), body)


def norm_into(width: int, eps: float, x: Load, weight: Span, shift: Span | None, y: Span, base: Expr) -> None:
    """LayerNorm of the row whose values `x(offset)` gives, eight at a time, into y from `base` on."""
    with serial(width // LANES) as c:
        y.store(base + c * LANES, x(let(c * LANES)))
    norm = NormSpec(eps, centered=True, bias=shift is not None)
    value = norm_row(width, norm, lambda at: y.load(base + at), weight, shift)
    with serial(width // LANES) as c:
        y.store(base + c * LANES, value(let(c * LANES)))
