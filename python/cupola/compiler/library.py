"""The device library: a decoder as an IRModule, lowered by TVM, linked into lib.so.

This file and `target.py` are where the compiler's Python side names TVM's passes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax
from tvm.relax import transform
from tvm.relax.frontend import nn

from cupola.compiler import cuda, pipeline, rocm
from cupola.compiler.config import LimitsConfig
from cupola.compiler.device import operations
from cupola.compiler.launch import hide_stages, single_launch
from cupola.compiler.linker import linker_for
from cupola.compiler.sample_function import sample_module
from cupola.compiler.target import CpuTarget, GpuTarget, Target
from cupola.errors import StorageError
from cupola.kernels.gpu.sample_row import Rows
from cupola.kernels.gpu.trait import STORED
from cupola.kernels.operations import Step
from cupola.manifest import Functions, KvCache
from cupola.models.decoder import Decoder
from cupola.models.spec import DecoderSpec
from cupola.quantize.layouts import OUT_BLOCK
from cupola.quantize.parameter import Parameter


@dataclass(frozen=True)
class Library:
    """What was built, and what a caller of it must know.

    Args:
        weight_names: the order of the weights.
        memory: bytes of working memory of each function at the compiled limits.
    """

    weight_names: tuple[str, ...]
    memory: Mapping[str, int]


class _Entry(nn.Module):
    """The library's functions around a decoder."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def forward(
        self,
        ids: nn.Tensor,
        positions: nn.Tensor,
        slots: nn.Tensor,
        q_indptr: nn.Tensor,
        page_indptr: nn.Tensor,
        page_ids: nn.Tensor,
        kv_len: nn.Tensor,
        out_rows: nn.Tensor,
        kv: list[nn.Tensor],
    ) -> nn.Tensor:
        step = Step(ids, positions, slots, q_indptr, page_indptr, page_ids, kv_len, out_rows)
        return self.decoder.run(step, list(kv))

    decode = forward  # of sequences with one row each, which the extents of its arguments say


class _WindowEntry(nn.Module):
    """The same around a decoder with windows, whose layers with one have pages of their own."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def forward(
        self,
        ids: nn.Tensor,
        positions: nn.Tensor,
        slots: nn.Tensor,
        q_indptr: nn.Tensor,
        page_indptr: nn.Tensor,
        page_ids: nn.Tensor,
        kv_len: nn.Tensor,
        out_rows: nn.Tensor,
        window_slots: nn.Tensor,
        window_page_ids: nn.Tensor,
        kv: list[nn.Tensor],
    ) -> nn.Tensor:
        step = Step(
            *(ids, positions, slots, q_indptr, page_indptr, page_ids, kv_len, out_rows, window_slots, window_page_ids)
        )
        return self.decoder.run(step, list(kv))

    decode = forward


def build(
    spec: DecoderSpec,
    parameters: Mapping[str, Parameter],
    kv_cache: KvCache,
    limits: LimitsConfig,
    target: Target,
    path: Path,
) -> Library:
    """Compiles a decoder for `target` and writes the shared library to `path`.

    Raises:
        StorageError: the library could not be linked or written.
    """
    with target.tvm_target():
        module, weights = decoder_module(spec, parameters, kv_cache, limits, target)
    return Library(weights, link(module, Functions().forward, target, path))


def link(module: tvm.IRModule, step: str, target: Target, path: Path) -> dict[str, int]:
    """Lowers a module of Relax functions, of which `step` is the one with the kernels, and links it.

    Returns:
        Bytes of working memory of each function.

    Raises:
        StorageError: the library could not be linked or written.
    """
    pipeline.register()
    with target.tvm_target(), _device_compiler(target):
        planned = plan(module)
        if isinstance(target, CpuTarget):
            planned = single_launch(planned, step)
        memory = _working_memory(planned)
        executable = relax.build(
            lower(planned), target.tvm_target(), relax_pipeline=None, tir_pipeline=pipeline.of(target)
        )
    try:
        executable.export_library(str(path), fcompile=linker_for(target.host))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise StorageError(
            f"cannot link `{path.name}`: {str(error).strip().splitlines()[-1]}",
            hint="a C++ compiler (g++ or clang++) must be installed, and the output folder writable",
        ) from error
    return memory


def _device_compiler(target: Target) -> AbstractContextManager[None]:
    """Within, TVM finds the tools that make a device's machine code. StorageError: they are not installed."""
    if isinstance(target, GpuTarget) and target.kind == "rocm":
        rocm.register(target.arch, target.warp)
    return cuda.compiler() if isinstance(target, GpuTarget) and target.kind == "cuda" else nullcontext()


def decoder_module(
    spec: DecoderSpec,
    parameters: Mapping[str, Parameter],
    kv_cache: KvCache,
    limits: LimitsConfig,
    target: Target,
) -> tuple[tvm.IRModule, tuple[str, ...]]:
    """The library's functions as Relax with calls of kernels, and the weights' names in order."""
    device = operations(spec, kv_cache.page_size, kv_cache.dtype, target)
    names = Functions()
    steps = (names.forward, names.decode) if isinstance(target, GpuTarget) else (names.forward,)
    module, weights = export(Decoder(spec, device, parameters), kv_cache, steps)
    module = _with_alloc_kv_cache(module, spec.num_layers, kv_cache)
    bounds = {"n": limits.max_step_tokens, "m": limits.max_batch, "b": limits.max_batch}
    sampling = functions_of(target).sample
    if sampling:
        vocabulary = spec.vocab_size
        module.update(sample_module(Rows(vocabulary, -(-vocabulary // OUT_BLOCK) * OUT_BLOCK), sampling))
        steps = (*steps, sampling)
    for step in steps:
        module = with_bounds(module, step, bounds)
    return module, weights


def functions_of(target: Target) -> Functions:
    """The names of the functions of a target's libraries."""
    return Functions(sample="sample" if isinstance(target, GpuTarget) else "")


def export(decoder: Decoder, kv_cache: KvCache, steps: Sequence[str]) -> tuple[tvm.IRModule, tuple[str, ...]]:
    """The decoder as Relax, and its weights' names in order."""
    page_tensors = [
        nn.spec.Tensor([pages, kv_cache.page_elements], _stored(kv_cache))
        for pages in _pages(decoder.spec.num_layers, kv_cache)
    ]

    def signature(rows: str) -> dict[str, object]:
        extents = {"ids": rows, "positions": rows, "slots": rows, "q_indptr": "b1", "page_indptr": "b1"}
        extents |= {"page_ids": "p", "kv_len": "b", "out_rows": "m"}
        if kv_cache.window:
            extents |= {"window_slots": rows, "window_page_ids": "p"}
        ints = {name: nn.spec.Tensor([extent], "int32") for name, extent in extents.items()}
        return {**ints, "kv": page_tensors, "$": {"param_mode": "packed", "effect_mode": "none"}}

    rows = {Functions().forward: "n", Functions().decode: "b"}
    entry = (_WindowEntry if kv_cache.window else _Entry)(decoder)
    module, named = entry.export_tvm({step: signature(rows[step]) for step in steps})
    return module, tuple(name.removeprefix("decoder.") for name, _ in named)


def _with_alloc_kv_cache(module: tvm.IRModule, layers: int, kv_cache: KvCache) -> tvm.IRModule:
    """Adds alloc_kv_cache(num_pages, [num_window_pages]) -> one tensor of uninitialized pages a layer."""
    builder = relax.BlockBuilder(module)
    names = _pages(layers, kv_cache)
    arguments = ("num_pages", "num_window_pages") if kv_cache.window else ("num_pages",)
    sizes = {name: tvm.tirx.Var(name, "int64") for name in arguments}
    argument = relax.Var("sizes", relax.ShapeType([*sizes.values()]))
    elements = tvm.tirx.IntImm("int64", kv_cache.page_elements)
    with builder.function(Functions().alloc_kv_cache, [argument]):
        shapes = [relax.ShapeExpr([sizes[name], elements]) for name in names]
        alloc = relax.op.builtin.alloc_tensor
        tensors = [builder.emit(alloc(shape, _stored(kv_cache), runtime_device_index=0)) for shape in shapes]
        builder.emit_func_output(builder.emit(relax.Tuple(tensors)))
    return builder.finalize()


def _stored(kv_cache: KvCache) -> str:
    """How elements of pages lie in memory."""
    return STORED.get(kv_cache.dtype, kv_cache.dtype)


def _pages(layers: int, kv_cache: KvCache) -> list[str]:
    """What says how many pages each layer has."""
    return ["num_window_pages" if i in kv_cache.window_layers else "num_pages" for i in range(layers)]


def with_bounds(module: tvm.IRModule, name: str, bounds: Mapping[str, int]) -> tvm.IRModule:
    """Tells the memory planner how large a step can be, so that working memory is planned once."""
    module[name] = module[name].with_attr("tir_var_upper_bound", dict(bounds))
    return module


def plan(module: tvm.IRModule) -> tvm.IRModule:
    """Relax down to explicit storage. Kernels are final already, so that nothing is fused or scheduled here."""
    return tvm.transform.Sequential(
        [
            transform.LegalizeOps(),
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
        ]
    )(module)


def lower(module: tvm.IRModule) -> tvm.IRModule:
    """Explicit storage down to instructions of TVM's virtual machine."""
    lowered = tvm.transform.Sequential(
        [
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )(module)
    return hide_stages(lowered)


def _working_memory(planned: tvm.IRModule) -> dict[str, int]:
    """Bytes of statically planned storage of each function."""
    sizes: dict[str, int] = {}
    for name, function in planned.functions.items():
        if isinstance(function, relax.Function):
            found: list[int] = []
            relax.analysis.post_order_visit(function, lambda node: found.extend(_storage_bytes(node)))  # noqa: B023
            sizes[name.name_hint] = sum(found)
    return sizes


def _storage_bytes(node: object) -> list[int]:
    """The size of one planned storage, where the node allocates one."""
    if not isinstance(node, relax.Call) or getattr(node.op, "name", "") != "relax.memory.alloc_storage":
        return []
    return [int(extent) for extent in node.args[0].values if isinstance(extent, tvm.tirx.IntImm)]
