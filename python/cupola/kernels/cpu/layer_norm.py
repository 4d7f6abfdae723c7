"""What happens to the activations of an encoder between its products: biases, layer norms, activation functions.

Products leave their biases to whoever reads their sums: that is here, in the pass that the sums go through anyway. Each
kernel ends in the form in which the following product wants its input, float32 or integers with scales
(`activation.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from tvm import tirx

from cupola.kernels.cpu.activation import quantize_group
from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
    Span,
    exp,
    f32,
    fma,
    for_each_row,
    kernel,
    let,
    registers,
    select,
    serial,
    size_var,
    splat,
    sum_lanes,
)
from cupola.kernels.cpu.wide import quantize_row, wide_arguments
from cupola.quantize.formats import GROUP

Codes: TypeAlias = Literal["int8", "int16"] | None  # what the following product takes; None: floats


def layer_norm(width: int, eps: float, codes: Codes) -> tirx.PrimFunc:
    """LayerNorm(x + bias) (Ba et al., 2016): (x[n, K], bias[K], weight[K], shift[K]) -> y[n, K], and y quantized."""
    n = size_var("n")

    def body(
        x: Span, bias: Span, weight: Span, shift: Span, y: Span, q: Span | None = None, s: Span | None = None
    ) -> None:
        def row(i: Expr) -> None:
            base = let(i * width)
            norm_row(width, eps, lambda at: let(x.load(base + at) + bias.load(at)), weight, shift, y, base)
            if q is not None and s is not None:
                _quantize_row(codes, width, lambda at: y.load(base + at), q, s, base)

        for_each_row(n, row)

    vectors = {name: Arg((width,), "float32") for name in ("bias", "weight", "shift")}
    args = {"x": Arg((n, width), "float32"), **vectors, "y": Arg((n, width), "float32")}
    return kernel("layer_norm", args | (_arguments(codes, n, width) if codes else {}), body)


def activate(width: int, function: str, codes: Codes) -> tirx.PrimFunc:
    """f(x + bias), with `function` one of FUNCTIONS: (x[n, K], bias[K]) -> float32[n, K], or (q, s)."""
    n = size_var("n")

    def body(x: Span, bias: Span, y: Span | None = None, q: Span | None = None, s: Span | None = None) -> None:
        def row(i: Expr) -> None:
            base = let(i * width)

            def value(at: Expr) -> Expr:
                return FUNCTIONS[function](let(x.load(base + at) + bias.load(at)))

            if q is not None and s is not None:
                _quantize_row(codes, width, value, q, s, base)
            elif y is not None:
                with serial(width // LANES) as c:
                    y.store(base + c * LANES, value(let(c * LANES)))

        for_each_row(n, row)

    args = {"x": Arg((n, width), "float32"), "bias": Arg((width,), "float32")}
    out = _arguments(codes, n, width) if codes else {"y": Arg((n, width), "float32")}
    return kernel(f"{function}_activation", args | out, body)


def norm_row(width: int, eps: float, x: Callable[[Expr], Expr], weight: Span, shift: Span, y: Span, base: Expr) -> None:
    """LayerNorm of the row whose values `x(offset)` gives, eight at a time, into y from `base` on."""
    sums = registers(1, fill=splat(f32(0.0)))
    with serial(width // LANES) as c:
        value = x(let(c * LANES))
        y.store(base + c * LANES, value)
        sums.put(0, let(sums.get(0) + value))
    mean = splat(let(sum_lanes(let(sums.get(0))) * f32(1.0 / width)))
    squares = registers(1, fill=splat(f32(0.0)))
    with serial(width // LANES) as c:
        centred = let(y.load(base + c * LANES) - mean)
        squares.put(0, fma(centred, centred, squares.get(0)))
    variance = let(sum_lanes(let(squares.get(0))) * f32(1.0 / width))
    inverse = splat(let(f32(1.0) / tirx.sqrt(variance + f32(eps))))
    with serial(width // LANES) as c:
        normed = let(let(y.load(base + c * LANES) - mean) * inverse)
        y.store(base + c * LANES, fma(normed, weight.load(c * LANES), shift.load(c * LANES)))


def _arguments(codes: Codes, n: Expr, width: int) -> dict[str, Arg]:
    if codes == "int16":
        return wide_arguments(n, width)
    return {"q": Arg((n, width), "int8"), "s": Arg((n, width // GROUP, 2), "float32")}


def _quantize_row(codes: Codes, width: int, value: Callable[[Expr], Expr], q: Span, s: Span, base: Expr) -> None:
    if codes == "int16":
        quantize_row(width, value, q, s, base)
        return
    with serial(width // GROUP) as group:
        values = [value(let(group * GROUP + part * LANES)) for part in range(GROUP // LANES)]
        quantize_group(values, q, base + group * GROUP, s, let((base // GROUP + group) * 2))


# Functions


def _gelu(x: Expr) -> Expr:
    """x * Phi(x) (Hendrycks and Gimpel, 2016), with erf to 1.5e-7 (Abramowitz and Stegun, 1964, 7.1.26)."""

    def all_lanes(value: float) -> Expr:
        return splat(f32(value))

    z = let(tirx.abs(x) * all_lanes(2**-0.5))
    t = let(all_lanes(1.0) / fma(z, all_lanes(0.3275911), all_lanes(1.0)))
    p = all_lanes(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = fma(p, t, all_lanes(c))
    tail = let(let(p * t) * exp(let(-let(z * z))))  # 1 - erf(z)
    half = let(x * all_lanes(0.5))
    return let(half * select(x < all_lanes(0.0), tail, let(all_lanes(2.0) - tail)))


def _gelu_tanh(x: Expr) -> Expr:
    """The approximation of GELU by a tanh, which is x * sigmoid(2 u)."""
    one = splat(f32(1.0))
    cube = let(let(x * x) * x)
    u = fma(cube, splat(f32(-2.0 * 0.044715 * 0.7978845608028654)), let(x * splat(f32(-2.0 * 0.7978845608028654))))
    return let(x / let(one + exp(u)))


def _relu(x: Expr) -> Expr:
    return let(tirx.max(x, splat(f32(0.0))))


FUNCTIONS: Mapping[str, Callable[[Expr], Expr]] = MappingProxyType(
    {"gelu": _gelu, "gelu_tanh": _gelu_tanh, "relu": _relu}
)
