"""Functions between products, for float32 vectors of any number of lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tvm import tirx

from cupola.kernels.cpu.emit import Expr, exp, f32, fma, lanes_of, let, select, splat


def silu(x: Expr) -> Expr:
    """x * sigmoid(x) (Elfwing et al., 2017)."""
    return let(x / let(_all(x, 1.0) + exp(let(-x))))


def gelu(x: Expr) -> Expr:
    """x * Phi(x) (Hendrycks and Gimpel, 2016), with erf to 1.5e-7 (Abramowitz and Stegun, 1964, 7.1.26)."""
    z = let(tirx.abs(x) * _all(x, 2**-0.5))
    t = let(_all(x, 1.0) / fma(z, _all(x, 0.3275911), _all(x, 1.0)))
    p = _all(x, 1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = fma(p, t, _all(x, c))
    tail = let(let(p * t) * exp(let(-let(z * z))))  # 1 - erf(z)
    half = let(x * _all(x, 0.5))
    return let(half * select(x < _all(x, 0.0), tail, let(_all(x, 2.0) - tail)))


def gelu_tanh(x: Expr) -> Expr:
    """The approximation of GELU by a tanh, which is x * sigmoid(2 u)."""
    cube = let(let(x * x) * x)
    u = fma(cube, _all(x, -2.0 * 0.044715 * 0.7978845608028654), let(x * _all(x, -2.0 * 0.7978845608028654)))
    return let(x / let(_all(x, 1.0) + exp(u)))


def relu(x: Expr) -> Expr:
    return let(tirx.max(x, _all(x, 0.0)))


def tanh(x: Expr) -> Expr:
    """1 - 2 / (e^2x + 1)."""
    tail = let(_all(x, 2.0) / let(exp(let(x * _all(x, 2.0))) + _all(x, 1.0)))
    return let(_all(x, 1.0) - tail)


FUNCTIONS: Mapping[str, Callable[[Expr], Expr]] = MappingProxyType(
    {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu, "tanh": tanh}
)


def soft_cap(x: Expr, cap: float) -> Expr:
    """cap * tanh(x / cap)."""
    return let(tanh(let(x * _all(x, 1.0 / cap))) * _all(x, cap))


def _all(x: Expr, value: float) -> Expr:
    """A constant in as many lanes as x has."""
    return splat(f32(value), lanes_of(x))
