"""What the blocks of a decoder are made of: declared weights, norms, products."""

from __future__ import annotations

from collections.abc import Mapping

from tvm.relax.frontend import nn

from cupola.kernels.operations import Activation, Epilogue, Matrix, NormWeights, Operations
from cupola.models.rotary import Rotary
from cupola.models.spec import DecoderSpec
from cupola.quantize.parameter import Parameter

Tables = Mapping[Rotary, nn.Tensor]  # cosines and sines of the step's positions


class Weights:
    """Declares a model's weight arguments on a device, by the names of their parameters."""

    def __init__(self, spec: DecoderSpec, ops: Operations, parameters: Mapping[str, Parameter]) -> None:
        self._spec, self._ops, self._parameters = spec, ops, parameters

    def vector(self, name: str) -> nn.Parameter | None:
        """None for a vector that the model does not have."""
        parameter = self._parameters.get(name)
        return None if parameter is None else self._ops.vector(*parameter.shape)

    def norm(self, name: str) -> NormLayer | None:
        """None for a norm that the model does not have."""
        weight = self.vector(f"{name}.weight")
        return None if weight is None else NormLayer(self._spec, weight, self.vector(f"{name}.bias"))

    def matrix(self, name: str) -> Matrix:
        parameter = self._parameters[name]
        rows, inputs = parameter.shape
        return self._ops.matrix(parameter.format, rows, inputs)


class NormLayer(nn.Module):
    """The weights of a norm."""

    def __init__(self, spec: DecoderSpec, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        self.eps, self.centered = spec.norm.eps, spec.norm.centered
        self.weight, self.bias = weight, bias

    @property
    def weights(self) -> NormWeights:
        return NormWeights(self.weight, self.bias, self.eps, self.centered)


class Linear(nn.Module):
    """A product with its bias; `scale` is a factor on what it gives."""

    def __init__(self, ops: Operations, name: str, weights: Weights, scale: float = 1.0) -> None:
        self.ops, self.scale = ops, scale
        self.weight, self.bias = weights.matrix(f"{name}.weight"), weights.vector(f"{name}.bias")

    def input(self, x: nn.Tensor, norm: NormLayer | None) -> Activation:
        """x, behind a norm if there is one, in the form in which the product wants it."""
        return self.ops.activation(x, self.weight, None if norm is None else norm.weights)

    def forward(self, x: Activation, residual: nn.Tensor | None = None) -> nn.Tensor:
        return self.ops.linear(x, self.weight, Epilogue(self.bias, scale=self.scale, residual=residual))
