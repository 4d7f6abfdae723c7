"""What becomes of a product's sums on their way into y: bias, function, factor, residual, cap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tvm import tirx

from cupola.kernels.cpu.emit import Expr, Index, Span, branch, exp, f32, i32, i64, lanes_of, let, splat
from cupola.kernels.cpu.functions import FUNCTIONS, soft_cap
from cupola.kernels.cpu.linear_spec import Finish, LinearSpec
from cupola.kernels.swiglu import SWIGLU_ALPHA, SWIGLU_LIMIT
from cupola.quantize.layouts import OUT_BLOCK

Gate = Callable[[Expr, Expr], Expr]  # (gate, up) -> what a gated product gives


@dataclass(frozen=True)
class Sink:
    """Where the sums of one matrix go.

    Args:
        spans: the kernel's arguments.
        place: which row of y the i-th row of the product is.
        first_bias: where the matrix's biases begin.
    """

    spec: LinearSpec
    spans: dict[str, Span]
    place: Callable[[Expr], Expr] = lambda row: row
    first_bias: Index = 0

    def store(self, block: Expr) -> Finish:
        """What becomes of the sums of a column block."""
        spec, spans = self.spec, self.spans

        def finish(row: Expr, part: int, sums: Expr) -> None:
            lanes = lanes_of(sums)
            at = let(self.place(row) * spec.width + block * OUT_BLOCK + part * lanes)
            y = self._biased(block, part, sums)
            if spec.function is not None:
                y = FUNCTIONS[spec.function](y)
            if spec.scale != 1:
                y = let(y * splat(f32(spec.scale), lanes))
            if spec.residual:
                y = let(y + spans["r"].load(at, lanes))
            spans["y"].store(at, soft_cap(y, spec.cap) if spec.cap else y)

        return finish

    def gate(self, block: Expr, up: Expr) -> Finish:
        """The same where W is [gate; up]: the gate's sums (up is 0) wait in y for those of the up projection."""
        spec, y = self.spec, self.spans["y"]
        function = _gate_of(spec.function or "silu")

        def finish(row: Expr, part: int, sums: Expr) -> None:
            lanes = lanes_of(sums)
            at = let(self.place(row) * spec.width + block * OUT_BLOCK + part * lanes)
            value = self._biased(let(block + up * (spec.blocks // 2)), part, sums)
            branch(
                up < 1,
                lambda: y.store(at, value),
                lambda: y.store(at, function(y.load(at, lanes), value)),
            )

        return finish

    def _biased(self, block: Expr, part: int, sums: Expr) -> Expr:
        """The sums with the bias of their outputs. The last block of a matrix may be wider than the bias is."""
        spec = self.spec
        if not spec.bias:
            return sums
        lanes, b = lanes_of(sums), self.spans["b"]
        first = let(block * OUT_BLOCK + part * lanes)
        if spec.outputs % OUT_BLOCK == 0:
            return let(sums + b.load(let(first + self.first_bias), lanes))
        last = spec.outputs - 1
        values = [b.at(let(tirx.min(first + lane, i64(last)) + self.first_bias)) for lane in range(lanes)]
        return let(sums + let(tirx.Shuffle(values, [i32(lane) for lane in range(lanes)])))


def swiglu_clamped(gate: Expr, up: Expr) -> Expr:
    """g * sigmoid(alpha g) * (u + 1) of clamped g and u, as gpt-oss has it (OpenAI, 2025)."""
    lanes = lanes_of(gate)
    limit, one = splat(f32(SWIGLU_LIMIT), lanes), splat(f32(1.0), lanes)
    g = let(tirx.min(gate, limit))
    u = let(tirx.max(tirx.min(up, limit), splat(f32(-SWIGLU_LIMIT), lanes)))
    silu = let(g / let(one + exp(let(g * splat(f32(-SWIGLU_ALPHA), lanes)))))
    return let(silu * let(u + one))


GATES: Mapping[str, Gate] = MappingProxyType({"swiglu_clamped": swiglu_clamped})


def _gate_of(name: str) -> Gate:
    """function(gate) * up, or a function of both."""
    return GATES.get(name) or (lambda gate, up: let(FUNCTIONS[name](gate) * up))
