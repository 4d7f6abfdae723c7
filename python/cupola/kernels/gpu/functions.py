"""Functions between products, one value at a time.

Those of processors round by adding and taking away a large number, which compilers of shaders fold to nothing; here the
device's own e^x serves, with arguments that it is defined for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tvm import tirx

from cupola.kernels.emit import Expr, f32, let, select


def exp(x: Expr) -> Expr:
    """e^x, for what overflows the largest power that does not."""
    return let(tirx.exp(tirx.min(x, f32(88.0))))


def sigmoid(x: Expr) -> Expr:
    return let(f32(1.0) / (f32(1.0) + exp(let(-x))))


def silu(x: Expr) -> Expr:
    """x * sigmoid(x) (Elfwing et al., 2017)."""
    return let(x * sigmoid(x))


def gelu(x: Expr) -> Expr:
    """x * Phi(x) (Hendrycks and Gimpel, 2016), with erf to 1.5e-7 (Abramowitz and Stegun, 1964, 7.1.26)."""
    z = let(tirx.abs(x) * f32(2**-0.5))
    t = let(f32(1.0) / (f32(1.0) + z * f32(0.3275911)))
    p = f32(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = let(p * t + f32(c))
    tail = let(p * t * exp(let(-(z * z))))  # 1 - erf(z)
    return let(x * f32(0.5) * select(x < f32(0.0), tail, let(f32(2.0) - tail)))


def gelu_tanh(x: Expr) -> Expr:
    """The approximation of GELU by a tanh, which is x * sigmoid(2 u)."""
    return let(x * sigmoid(let(f32(2.0 * 0.7978845608028654) * (x + f32(0.044715) * x * x * x))))


def relu(x: Expr) -> Expr:
    return let(tirx.max(x, f32(0.0)))


def tanh(x: Expr) -> Expr:
    """1 - 2 / (e^2x + 1)."""
    return let(f32(1.0) - f32(2.0) / (exp(let(x * f32(2.0))) + f32(1.0)))


def soft_cap(x: Expr, cap: float) -> Expr:
    """cap * tanh(x / cap)."""
    return let(tanh(let(x * f32(1.0 / cap))) * f32(cap))


FUNCTIONS: Mapping[str, Callable[[Expr], Expr]] = MappingProxyType(
    {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu, "tanh": tanh}
)


def gate(function: str, gated: Expr, up: Expr) -> Expr:
    """What a gated product gives, of its two halves."""
    if function != "swiglu_clamped":
        return let(FUNCTIONS[function](gated) * up)
    g, u = let(tirx.min(gated, f32(7.0))), let(tirx.max(tirx.min(up, f32(7.0)), f32(-7.0)))
    return let(g * sigmoid(let(g * f32(1.702))) * (u + f32(1.0)))
