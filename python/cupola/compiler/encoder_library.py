"""The device library of an encoder; what it shares with a decoder's is in `library.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm.relax.frontend import nn

from cupola.compiler.config import LimitsConfig
from cupola.compiler.device import encoder_operations
from cupola.compiler.library import Library, link, with_bounds
from cupola.compiler.target import Target
from cupola.kernels.encoder_operations import EncoderStep
from cupola.manifest import Functions
from cupola.models.encoder import Encoder, Pooling
from cupola.models.encoder_spec import EncoderSpec
from cupola.quantize.parameter import Parameter


@dataclass(frozen=True)
class EncoderSizes:
    """What is compiled into an encoder's library beside the network.

    Args:
        max_context: most tokens of one sequence.
        pooling: what becomes of a text's rows, where the model is no classifier.
        attention: in what attention multiplies: float32, or int16 with scales; a GPU has one way.
        limits: of one step.
    """

    max_context: int
    pooling: Pooling
    attention: str
    limits: LimitsConfig


class _Entry(nn.Module):
    """The library's function around an encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def embed(self, ids: nn.Tensor, positions: nn.Tensor, types: nn.Tensor, q_indptr: nn.Tensor) -> nn.Tensor:
        return self.encoder.run(EncoderStep(ids, positions, types, q_indptr))


def build(
    spec: EncoderSpec, parameters: Mapping[str, Parameter], sizes: EncoderSizes, target: Target, path: Path
) -> Library:
    """Compiles an encoder for `target` and writes the shared library to `path`.

    Raises:
        StorageError: the library could not be linked or written.
    """
    with target.tvm_target():
        module, weights = encoder_module(spec, parameters, sizes, target)
    return Library(weights, link(module, Functions().embed, target, path))


def encoder_module(
    spec: EncoderSpec, parameters: Mapping[str, Parameter], sizes: EncoderSizes, target: Target
) -> tuple[tvm.IRModule, tuple[str, ...]]:
    """embed(ids[n], positions[n], types[n], q_indptr[b+1], weights) -> [b, vector] as Relax, and the weights' names."""
    operations = encoder_operations(spec, sizes.max_context, sizes.attention, target)
    encoder = Encoder(spec, operations, parameters, sizes.pooling)

    def ints(extent: str) -> nn.spec.Tensor:
        return nn.spec.Tensor([extent], "int32")

    name = Functions().embed
    arguments = {"ids": ints("n"), "positions": ints("n"), "types": ints("n"), "q_indptr": ints("b1")}
    signature = {name: {**arguments, "$": {"param_mode": "packed", "effect_mode": "none"}}}
    module, named = _Entry(encoder).export_tvm(signature)
    bounds = {"n": sizes.limits.max_step_tokens, "b1": sizes.limits.max_batch + 1}
    return with_bounds(module, name, bounds), tuple(weight.removeprefix("encoder.") for weight, _ in named)
