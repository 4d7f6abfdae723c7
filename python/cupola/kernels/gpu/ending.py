"""What becomes of a product's sums: `operations.Epilogue`, as a kernel's own parameters."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, f32, i32, let
from cupola.kernels.gpu.emit import read, write
from cupola.kernels.gpu.functions import FUNCTIONS, gate, soft_cap
from cupola.kernels.operations import Epilogue


@dataclass(frozen=True)
class Ending:
    """An epilogue without its tensors.

    Args:
        outputs: length of the bias.
        width: of a row of the result.
        residual: the type of what is added; None: nothing is.
    """

    outputs: int
    width: int
    bias: bool = False
    function: str | None = None
    gated: bool = False
    scale: float = 1.0
    residual: str | None = None
    cap: float = 0.0

    @classmethod
    def of(cls, epilogue: Epilogue, outputs: int, width: int) -> Ending:
        residual = None if epilogue.residual is None else str(epilogue.residual.dtype)
        bias = epilogue.bias is not None
        return cls(outputs, width, bias, epilogue.function, epilogue.gated, epilogue.scale, residual, epilogue.cap)

    def args(self, n: Expr) -> dict[str, Arg]:
        """The tensors that it takes, between those of the product and the result."""
        bias = {"b": Arg((self.outputs,), "float32")} if self.bias else {}
        return bias | ({"r": Arg((n, self.width), self.residual)} if self.residual else {})

    def store(
        self, spans: dict[str, Span], row: Expr, output: Expr, sums: tuple[Expr, ...], bias_at: Expr | int = 0
    ) -> None:
        """Finishes one value of the result.

        Args:
            output: its place in the row.
            sums: of the output; of a gated product those of its gate, and of the other half.
            bias_at: where the bias of this matrix begins.
        """
        y = [self._biased(spans, let(output + half * self.width), value, bias_at) for half, value in enumerate(sums)]
        at = let(row * self.width + output)
        if self.gated:
            result = gate(self.function or "silu", y[0], y[1])
        else:
            result = y[0] if self.function is None else FUNCTIONS[self.function](y[0])
        if self.scale != 1:
            result = let(result * f32(self.scale))
        if self.residual:
            result = let(result + read(spans["r"], at))
        write(spans["y"], at, soft_cap(result, self.cap) if self.cap else result)

    def _biased(self, spans: dict[str, Span], output: Expr, value: Expr, bias_at: Expr | int) -> Expr:
        """The last block of a matrix may be wider than the bias is."""
        if not self.bias:
            return value
        return let(value + spans["b"].at(bias_at + tirx.min(output, i32(self.outputs - 1))))
