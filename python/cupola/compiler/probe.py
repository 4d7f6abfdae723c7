"""A decoder in float32 that runs here and now: its predictions, its products' inputs, and what a changed matrix does.

Calibration asks it. It is the same decoder that a library is made of, on the same kernels, with one more behind each
activation, which adds up squares; nothing of it is written to disk.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.compiler import device, library, pipeline
from cupola.compiler.config import TargetConfig
from cupola.compiler.target import CpuTarget, resolve
from cupola.kernels.cpu.emit import LANES
from cupola.kernels.cpu.observe import add_squares
from cupola.kernels.cpu.products import f32_tensor
from cupola.kernels.operations import Activation, Matrix, NormWeights, Operations
from cupola.manifest import Functions, KvCache
from cupola.models.decoder import Decoder
from cupola.models.spec import DecoderSpec
from cupola.quantize.formats import Format
from cupola.quantize.layouts import pack
from cupola.quantize.parameter import Parameter
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.convert import packed

CHUNK = 64  # tokens a step
PAGE_SIZE = 16
_GIVEN_PROCESSORS = -2  # a mode of TVM's pool: as many threads as processors are named, on these


class _Observing:
    """A device's operations; the squares of every product's inputs are added up besides."""

    def __init__(self, device: Operations) -> None:
        self._device = device
        self._add_squares = functools.cache(add_squares)
        self.sums: list[tuple[Matrix, nn.Parameter]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._device, name)

    def matrix(self, fmt: Format, rows: int, inputs: int) -> Matrix:
        matrix = self._device.matrix(fmt, rows, inputs)
        if inputs % LANES == 0:
            self.sums.append((matrix, nn.Parameter((inputs,), "float32")))
        return matrix

    def activation(self, x: nn.Tensor, matrix: Matrix, norm: NormWeights | None = None) -> Activation:
        found = self._device.activation(x, matrix, norm)
        sums = next((sums for known, sums in self.sums if known is matrix), None)
        if sums is None:
            return found
        (floats,) = found
        observed, _ = op.tensor_ir_inplace_op(
            self._add_squares(matrix.inputs),
            "add_squares",
            [floats, sums],
            inplace_indices=[0, 1],
            out=[f32_tensor(*floats.shape), f32_tensor(matrix.inputs)],
        )
        return (observed,)


class _Observed(Decoder):
    """A decoder with the sums among its weights."""

    def __init__(self, spec: DecoderSpec, operations: _Observing, parameters: Mapping[str, Parameter]) -> None:
        super().__init__(spec, cast(Operations, operations), parameters)
        self.sums = nn.ParameterList([sums for _, sums in operations.sums])


class Probe:
    """A decoder's weights in memory as float32, and its `forward`.

    Args:
        parameters: the model's, by name, whatever their formats.
        context: the most tokens of a sequence.
        on_progress: called with (parameters read, parameters in all).
    """

    def __init__(
        self,
        spec: DecoderSpec,
        checkpoint: Checkpoint,
        parameters: Mapping[str, Parameter],
        context: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.context = min(context, spec.max_context) // PAGE_SIZE * PAGE_SIZE
        self._vocabulary = spec.vocab_size
        target = resolve(TargetConfig())
        assert isinstance(target, CpuTarget)  # that of a configuration without a device
        pages = device.page_layout(spec, PAGE_SIZE, "float32", target)
        operations = _Observing(device.operations(spec, PAGE_SIZE, "float32", target))
        floats = {name: replace(parameter, format=Format.F32) for name, parameter in parameters.items()}
        decoder = _Observed(spec, operations, floats)
        known = {id(parameter): name for name, parameter in decoder.named_parameters()}
        self._observed = [known[id(matrix)] for matrix, _ in operations.sums]
        kv_cache = KvCache(page_size=PAGE_SIZE, dtype="float32", page_elements=pages.elements)
        self._forward, names = _compiled(decoder, target, kv_cache)
        _use_all_processors()
        self._weights: dict[str, tvm.runtime.Tensor] = {}
        for done, name in enumerate(names):
            on_progress(done, len(names))
            self._weights[name] = tvm.runtime.tensor(
                np.zeros(operations.sums[int(name.removeprefix("sums."))][0].inputs, np.float32)
                if name.startswith("sums.")
                else packed(checkpoint, floats[name])
            )
        count = self.context // PAGE_SIZE
        self._pages = [tvm.runtime.empty((count, pages.elements), "float32") for _ in range(spec.num_layers)]
        self._tokens = 0

    def logits(self, ids: np.ndarray) -> Iterator[np.ndarray]:
        """float32 [n, vocabulary], pieces of the rows of one sequence of at most `context` tokens, in order."""
        for start in range(0, len(ids), CHUNK):
            positions = np.arange(start, min(start + CHUNK, len(ids)), dtype=np.int32)
            length = int(positions[-1]) + 1
            used = np.arange(-(-length // PAGE_SIZE), dtype=np.int32)
            values = (
                ids[positions].astype(np.int32),
                positions,
                positions,  # pages lie in order
                np.array([0, len(positions)], np.int32),
                np.array([0, len(used)], np.int32),
                used,
                np.array([length], np.int32),
                np.arange(len(positions), dtype=np.int32),
            )
            step = [tvm.runtime.tensor(value) for value in values]
            found = self._forward(*step, self._pages, list(self._weights.values()))
            self._tokens += len(positions)
            yield found.numpy()[:, : self._vocabulary]

    def mean_squares(self) -> dict[str, np.ndarray]:
        """Matrix -> float32 [inputs], the mean square of each input over all tokens so far."""
        sums = (self._weights[f"sums.{i}"].numpy() for i in range(len(self._observed)))
        return {name: total / max(self._tokens, 1) for name, total in zip(self._observed, sums, strict=True)}

    @contextmanager
    def replaced(self, name: str, matrix: np.ndarray) -> Iterator[None]:
        """As long as it lasts, the matrix of a parameter is another one: float32 [N, K]."""
        tensor = self._weights[name]
        before = tensor.numpy()
        tensor.copyfrom(pack(matrix, Format.F32))
        try:
            yield
        finally:
            tensor.copyfrom(before)


def _compiled(
    decoder: _Observed, target: CpuTarget, kv_cache: KvCache
) -> tuple[Callable[..., tvm.runtime.Tensor], Sequence[str]]:
    """`forward` as a function of this process, and the names of the weights in order."""
    step = Functions().forward
    pipeline.register()
    with target.tvm_target():
        module, names = library.export(decoder, kv_cache, (step,))
        module = library.with_bounds(module, step, {"n": CHUNK, "m": CHUNK, "b": 1})
        lowered = library.lower(library.plan(module))
        built = relax.build(lowered, target.tvm_target(), relax_pipeline=None, tir_pipeline=pipeline.of(target))
    return relax.VirtualMachine(built, tvm.cpu())[step], names


def _use_all_processors() -> None:
    """TVM's pool would take half of them."""
    processors = sorted(os.sched_getaffinity(0))
    tvm.get_global_func("runtime.config_threadpool")(_GIVEN_PROCESSORS, len(processors), [str(p) for p in processors])
