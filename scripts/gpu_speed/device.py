"""What the device does by itself, by its own clock where it has one: copies, products, and the steps of a library.

It goes through TVM's runtime and virtual machine, without Cupola's engine. Nothing is compiled here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tvm
from tvm.runtime.vm import VirtualMachine

from cupola.engine.native_model import load_runtime, map_tensors
from cupola.manifest import Manifest
from gpu_speed.cases import CONTEXT, Case, Roofline

PRODUCT, PRODUCT_LIBRARY = "product", "product.so"
_LONG_ENOUGH = 0.05  # seconds of a measurement


def product_size(dtype: str) -> int:
    """Rows, inputs and outputs of the product that stands for the matrix rate; without matrix units a small one."""
    return 8192 if dtype != "float32" else 512


class Device:
    """One GPU through TVM's runtime."""

    def __init__(self, kind: str) -> None:
        """EngineError: it cannot be used here."""
        load_runtime(kind)
        self.tvm = tvm.device(kind, 0)

    @property
    def name(self) -> str:
        try:
            return str(self.tvm.device_name)
        except (AttributeError, tvm.TVMError):
            return str(self.tvm)

    def copy_rate(self, size: int) -> float:
        """Bytes a second of copies of `size` bytes within the device, those read and those written."""
        source, target = (tvm.runtime.empty((size // 4,), "float32", self.tvm) for _ in range(2))
        return 2 * size / self._seconds(lambda: source.copyto(target))

    def matrix_rate(self, library: Path) -> float:
        """Flops of our own product."""
        machine = VirtualMachine(tvm.runtime.load_module(str(library)), self.tvm)
        dtype = "float16" if self.tvm.dlpack_device_type() == tvm.cuda(0).dlpack_device_type() else "float32"
        size = product_size(dtype)
        random = np.random.default_rng(0)
        x = self._uploaded((random.standard_normal((size, size), np.float32) / math.sqrt(size)).astype(dtype))
        words = random.standard_normal((size // 16, size, 16), np.float32).astype(dtype)
        weight = self._uploaded(words.view(np.uint32) if dtype == "float16" else words)
        product = machine[PRODUCT]
        return 2 * size**3 / self._seconds(lambda: product(x, [weight]))

    def _uploaded(self, array: np.ndarray) -> tvm.runtime.Tensor:
        return tvm.runtime.tensor(np.ascontiguousarray(array), device=self.tvm)

    def _seconds(self, call: Callable[[], object]) -> float:
        """Of one call, of so many that the clock of the host does."""
        count = 1
        while True:
            self.tvm.sync()
            begin = time.perf_counter()
            for _ in range(count):
                call()
            self.tvm.sync()
            seconds = time.perf_counter() - begin
            if seconds > _LONG_ENOUGH and count > 1:
                return seconds / count
            count = max(2 * count, min(1000, int(count * _LONG_ENOUGH / max(seconds, 1e-6))))


class Steps:
    """A model's library, called step by step, with nothing around it: no engine, no sampling, no recording."""

    def __init__(self, device: Device, folder: Path, manifest: Manifest) -> None:
        """RuntimeError: there is no room."""
        self._device, self._manifest = device, manifest
        library = tvm.runtime.load_module(str(folder / manifest.library.file))
        self._machine = VirtualMachine(library, device.tvm)
        mapped = map_tensors(folder, manifest.weights)
        self._weights = [device._uploaded(np.from_dlpack(tensor)) for tensor in mapped]

    def seconds(self, case: Case) -> float:
        """Of one step, by the device's clock (CUDA's events; the host's where a device has none)."""
        manifest, names = self._manifest, self._manifest.functions
        decode = case.kind == "decode"
        sequences, each = (case.count, 1) if decode else (1, case.count)
        context = CONTEXT + case.steps // 2 if decode else case.count
        function = names.decode if decode else names.forward
        arguments = self._arguments(sequences, each, context)
        pages = sequences * -(-context // manifest.kv_cache.page_size)
        cache = self._machine[names.alloc_kv_cache](tvm.runtime.ShapeTuple([pages]))
        for layer in cache:
            layer.copyfrom(np.zeros(layer.shape, layer.dtype))
        self._machine.set_input(function, *arguments, cache, self._weights)
        timed = self._machine.time_evaluator("invoke_stateful", self._device.tvm, number=3, repeat=1)
        return float(timed(function).mean)

    def _arguments(self, sequences: int, each: int, context: int) -> list[tvm.runtime.Tensor]:
        """Sequence s owns neighbouring pages, and its last `each` tokens are computed."""
        size = self._manifest.kv_cache.page_size
        pages = -(-context // size)
        steps, owner = np.arange(sequences + 1), np.repeat(np.arange(sequences), each)
        positions = np.tile(np.arange(context - each, context), sequences)
        ints = (
            positions % self._manifest.shape.vocab_size,
            positions,
            owner * pages * size + positions,
            steps * each,
            steps * pages,
            np.arange(sequences * pages),
            np.full(sequences, context),
            steps[1:] * each - 1,
        )
        return [self._device._uploaded(array.astype(np.int32)) for array in ints]


def roofline(device: Device, work: Path, torch_flops: float | None, copied: int) -> Roofline:
    """Of this run: torch's product where torch is there, else ours."""
    flops = device.matrix_rate(work / PRODUCT_LIBRARY) if torch_flops is None else torch_flops
    by = "Cupola's own product" if torch_flops is None else "torch.matmul"
    return Roofline(device.copy_rate(copied), flops, by)
