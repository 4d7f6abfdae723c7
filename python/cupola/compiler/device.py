"""What the kind of a target decides: who computes, and what pages hold."""

from __future__ import annotations

from cupola.compiler.config import CompileConfig
from cupola.compiler.target import CpuTarget, GpuTarget, Target
from cupola.errors import UsageError
from cupola.kernels.cpu.encoder_attention import EncoderAttentionSpec
from cupola.kernels.cpu.encoder_operations import CpuEncoderOperations
from cupola.kernels.cpu.isa import BY_NAME
from cupola.kernels.cpu.latent_operations import CpuLatentOperations
from cupola.kernels.cpu.latent_pages import LatentLayout
from cupola.kernels.cpu.operations import CpuOperations
from cupola.kernels.cpu.pages import PageLayout
from cupola.kernels.encoder_operations import EncoderOperations
from cupola.kernels.gpu.encoder_operations import GpuEncoderOperations
from cupola.kernels.gpu.latent_operations import GpuLatentOperations
from cupola.kernels.gpu.matrix_unit import of_cuda
from cupola.kernels.gpu.operations import GpuOperations
from cupola.kernels.gpu.pages import GpuPages, LatentPages, pages_for_units
from cupola.kernels.gpu.trait import STORED, Gpu
from cupola.kernels.heads import HeadShape
from cupola.kernels.operations import Operations
from cupola.models.encoder_spec import EncoderSpec
from cupola.models.spec import DecoderSpec

HALF_KINDS = ("cuda", "rocm", "metal")  # whose code can name float16 whatever activations are


def page_dtype(config: CompileConfig, target: Target) -> str:
    """The type of the elements of pages.

    Raises:
        UsageError: the configuration asks for one that this kind of target does not have.
    """
    wanted = config.kv_cache.dtype
    if isinstance(target, CpuTarget):
        return wanted if wanted != "auto" else "float32" if config.model.quant == "f32" else "int16"
    if wanted == "auto":
        return target.dtype
    if wanted not in STORED or (wanted == "float16" and not gpu_of(target).half):
        has = "float16 and float32" if gpu_of(target).half else "float32"
        raise UsageError(f"kv_cache.dtype is `{wanted}`, but pages of {target.name} are of {has}", hint='use "auto"')
    return wanted


def page_layout(spec: DecoderSpec, page_size: int, dtype: str, target: Target) -> PageLayout | GpuPages:
    """The pages of one layer."""
    if spec.latent is not None:
        if isinstance(target, CpuTarget):
            return LatentLayout.of(spec.latent.shape, page_size, dtype)
        return LatentPages.of(spec.latent.shape, page_size, STORED[dtype])
    heads = HeadShape(spec.num_heads, spec.num_kv_heads, spec.head_dim)
    if isinstance(target, CpuTarget):
        return PageLayout(heads, page_size, dtype)
    pages = GpuPages(heads, page_size, STORED[dtype])
    return pages_for_units(pages) if gpu_of(target).matrix is not None and dtype == target.dtype else pages


def operations(spec: DecoderSpec, page_size: int, dtype: str, target: Target) -> Operations:
    """The operations of a target's device."""
    pages = page_layout(spec, page_size, dtype, target)
    if isinstance(target, GpuTarget) and isinstance(pages, LatentPages) and spec.latent is not None:
        return GpuLatentOperations(gpu_of(target), spec.latent.shape, pages)
    if isinstance(target, GpuTarget) and isinstance(pages, GpuPages):
        return GpuOperations(gpu_of(target), pages)
    if isinstance(target, CpuTarget) and isinstance(pages, LatentLayout) and spec.latent is not None:
        return CpuLatentOperations(BY_NAME[target.isa], spec.latent.shape, pages)
    if isinstance(target, CpuTarget) and isinstance(pages, PageLayout):
        return CpuOperations(BY_NAME[target.isa], pages.heads, pages)
    raise TypeError(f"{pages} are no pages of {target}")


def encoder_operations(spec: EncoderSpec, max_context: int, dtype: str, target: Target) -> EncoderOperations:
    """The same for an encoder.

    Args:
        dtype: in what attention on a processor multiplies: float32, or int16 with scales.
    """
    if isinstance(target, GpuTarget):
        return GpuEncoderOperations(gpu_of(target), spec.num_heads, spec.head_dim, max_context)
    attention = EncoderAttentionSpec(spec.num_heads, spec.head_dim, max_context, dtype)
    return CpuEncoderOperations(BY_NAME[target.isa], attention)


def gpu_of(target: GpuTarget) -> Gpu:
    """What kernels know of a target."""
    half = target.kind in HALF_KINDS or target.dtype == "float16"
    matrix = of_cuda(target.dtype) if target.kind == "cuda" and target.dtype != "float32" else None
    return Gpu(target.threads, target.shared_bytes, target.warp, target.dtype, half, matrix)
