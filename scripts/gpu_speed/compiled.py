"""The half that needs the compiler and no GPU: libraries of a shape, and of one large matrix product."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tvm.relax.frontend import nn

from cupola.compiler import library
from cupola.compiler.config import CompileConfig, LimitsConfig
from cupola.compiler.device import gpu_of
from cupola.compiler.gpu_target import GpuTarget, resolve_gpu
from cupola.errors import UsageError
from cupola.kernels.gpu.products import GpuProducts
from cupola.quantize.formats import Format
from device_checks.shapes import SHAPES, compile_shape
from gpu_speed.device import PRODUCT, PRODUCT_LIBRARY, product_size


def compile_all(work: Path, shape: str, device: str, quants: Sequence[str], limits: LimitsConfig) -> None:
    """Writes WORK/SHAPE-QUANT for every scheme, and the product and SHAPE.json (the configuration) beside them.

    Args:
        device: as `--target` takes it: cuda:sm_90, webgpu.

    Raises:
        UsageError: it is no GPU.
        StorageError: a library cannot be compiled or written.
    """
    kind, _, arch = device.partition(":")
    if kind not in ("cuda", "webgpu"):
        raise UsageError(f"--device is `{device}`, which is no GPU that can be measured", hint="cuda:sm_90 or webgpu")
    work.mkdir(parents=True, exist_ok=True)
    for quant in quants:
        target = resolve_gpu(kind, arch, "float32" if quant == "f32" else "auto")  # type: ignore[arg-type]
        config = CompileConfig(limits=limits).with_quant(quant)
        compile_shape(shape, config, [target], work / f"{shape}-{quant}")
    (work / f"{shape}.json").write_text(json.dumps(dict(SHAPES[shape])) + "\n", encoding="utf-8")
    target = resolve_gpu(kind, arch)  # type: ignore[arg-type]
    compile_product(target, product_size(target.dtype), work / PRODUCT_LIBRARY)


class _Product(nn.Module):
    """One matrix product."""

    def __init__(self, products: GpuProducts, fmt: Format, size: int) -> None:
        self._products = products
        self.weight = products.matrix(fmt, size, size)

    def product(self, x: nn.Tensor) -> nn.Tensor:
        return self._products.linear((x,), self.weight)


def compile_product(target: GpuTarget, size: int, path: Path) -> None:
    """product(x[n, size], [weight]) -> [n, size], in the target's own type."""
    fmt = Format.F32 if target.dtype == "float32" else Format.F16
    gpu = gpu_of(target)
    with target.tvm_target():
        product = _Product(GpuProducts(gpu), fmt, size)
        signature = {PRODUCT: {"x": nn.spec.Tensor(["n", size], gpu.stored), "$": {"param_mode": "packed"}}}
        module, _ = product.export_tvm(signature)
    library.link(module, PRODUCT, target, path)
