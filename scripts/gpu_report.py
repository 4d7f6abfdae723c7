"""What machine code says of a step on CUDA's devices: compiled, not executed.

The decoder of a shape is compiled for one architecture; of every kernel that a step of so many sequences launches the
table has what bounds its speed and can be counted: registers and spills, blocks that fit on a multiprocessor, bytes
under way before the first multiplication (of a thread, and of a multiprocessor), instructions of the main loop, and the
bandwidth that the rate of instructions allows, as a fraction of the memory's.

    python scripts/gpu_report.py [--arch sm_90] [--quant q4] [--rows 1] [--context 1024] [--only linear]

It needs nvcc and `pip install nvidia-cuda-nvdisasm`. Two layers are compiled, the last of which takes only the rows of
which logits are wanted; `times` counts a whole model's launches.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import tvm
from tvm import relax, tirx

from cupola.compiler import device, library, pipeline
from cupola.compiler.config import CompileConfig, LimitsConfig
from cupola.compiler.cuda import find_nvcc
from cupola.compiler.gpu_target import GpuTarget, resolve_gpu
from cupola.manifest import KvCache
from cupola.models import registry
from cupola.models.parameters import declare
from cupola.models.spec import DecoderSpec
from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter
from cupola.quantize.schemes import SCHEMES, choose_format
from gpu_machine_code.launches import Launch, launches
from gpu_machine_code.sass import Code, find_nvdisasm, kernels

LLAMA_3_8B: Mapping[str, object] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
LAYERS = 2
PAGE = 16


@dataclass(frozen=True)
class Chip:
    """One product of an architecture.

    Args:
        shared: bytes of a multiprocessor that its blocks may have; a block's own take 1 KiB more.
        memory: bytes a second.
    """

    name: str
    multiprocessors: int
    clock: float
    threads: int
    shared: int
    memory: float


# NVIDIA's data sheets (processors, boost clocks, memory) and the CUDA C++ programming guide (compute capabilities).
CHIPS = {
    "sm_80": Chip("A100 SXM 80 GB", 108, 1.41e9, 2048, 164 << 10, 2.04e12),
    "sm_89": Chip("L40S", 142, 2.52e9, 1536, 100 << 10, 0.86e12),
    "sm_90": Chip("H200", 132, 1.98e9, 2048, 228 << 10, 4.8e12),
    "sm_100": Chip("B200", 148, 1.96e9, 2048, 228 << 10, 8.0e12),
}
REGISTERS, SCHEDULERS, WARP = 65536, 4, 32


@dataclass(frozen=True)
class Kernel:
    """A kernel as it is launched."""

    launch: Launch
    registers: int
    spilled: int
    shared: int
    whole: Code
    main: Code

    def blocks(self, chip: Chip) -> int:
        """That fit on a multiprocessor; registers are given out by 256 a warp."""
        warps = -(-self.launch.threads // WARP)
        by_registers = REGISTERS // (-(-self.registers * WARP // 256) * 256) // warps
        return min(by_registers, chip.threads // self.launch.threads, chip.shared // (self.shared + 1024), 32)


@dataclass(frozen=True)
class Call:
    """A kernel function as a step calls it.

    Args:
        times: in a whole model.
    """

    name: str
    function: tirx.PrimFunc
    times: int


def llama(quant: str) -> tuple[DecoderSpec, dict[str, Parameter]]:
    """Two layers of Llama 3 8B."""
    _, whole = registry.read(LLAMA_3_8B)
    assert isinstance(whole, DecoderSpec)
    spec = replace(whole, layers=whole.layers[:LAYERS])
    found = {}
    for parameter in declare(spec, ()):
        held = [_Held(source.one) for source in parameter.sources]
        found[parameter.name] = replace(parameter, format=choose_format(parameter.role, held, SCHEMES[quant]))
    return spec, found


@dataclass(frozen=True)
class _Held:
    """A tensor of floats of a checkpoint that there is not."""

    shape: tuple[int, ...]
    format: Format = Format.F32


def calls(quant: str, target: GpuTarget) -> list[Call]:
    """What a decode step calls, in the order of first calls."""
    spec, parameters = llama(quant)
    config = CompileConfig()
    dtype = device.page_dtype(config, target)
    elements = device.page_layout(spec, PAGE, dtype, target).elements
    cache = KvCache(page_size=PAGE, dtype=dtype, page_elements=elements)
    with target.tvm_target():
        module, _ = library.decoder_module(spec, parameters, cache, LimitsConfig(), target)
    found: dict[str, Call] = {}
    for step in ("decode", library.functions_of(target).sample):
        for name in _called(module[step]):
            before = found.get(name)
            found[name] = Call(name, module[name], 1 if before is None else before.times + 1)
    layers = int(str(LLAMA_3_8B["num_hidden_layers"]))
    return [replace(call, times=call.times // LAYERS * layers + call.times % LAYERS) for call in found.values()]


def _called(function: relax.Function) -> Iterator[str]:
    names: list[str] = []

    def visit(node: object) -> None:
        if isinstance(node, relax.Call) and str(getattr(node.op, "name", "")).startswith("relax.call_tir"):
            names.append(node.args[0].name_hint)

    relax.analysis.post_order_visit(function, visit)
    return iter(names)


def compiled(function: tirx.PrimFunc, target: GpuTarget, extents: Mapping[str, int], folder: Path) -> list[Kernel]:
    """The kernels that a function launches for such extents."""
    pipeline.register()
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    with target.tvm_target():
        built = tirx.build(module, target=target.tvm_target(), pipeline=pipeline.GPU_PIPELINE)
    file, cubin = folder / "kernel.cu", folder / "kernel.cubin"
    file.write_text(next(part.inspect_source() for part in built.imports), encoding="utf-8")
    nvcc = [str(find_nvcc()), "-cubin", f"-arch={target.arch}", "-Xptxas", "-v", "-o", str(cubin), str(file)]
    said = subprocess.run(nvcc, capture_output=True, text=True, check=True).stderr
    told = {part.partition("'")[0]: part for part in said.split("entry function '")[1:]}
    nvdisasm = [str(find_nvdisasm()), "-c", str(cubin)]
    code = kernels(subprocess.run(nvdisasm, capture_output=True, text=True, check=True).stdout)
    found = []
    for launch in launches(function, extents):
        name = "kernel_kernel" + (f"_{launch.index}" if launch.index else "")
        numbers = [
            re.search(pattern, told[name]) for pattern in (r"Used (\d+)", r"(\d+) bytes spill st", r"(\d+) bytes smem")
        ]
        registers, spilled, shared = (int(number.group(1)) if number else 0 for number in numbers)
        found.append(Kernel(launch, registers, spilled, shared, *code[name]))
    return found


HEADER = (
    "| kernel | times | grid x threads | registers, spilled | shared | blocks a multiprocessor, waves | main loop |"
    " loads (bytes x count) | under way | instructions allow |\n|---|---|---|---|---|---|---|---|---|---|"
)


def row(call: Call, kernel: Kernel, chip: Chip) -> str:
    """A row of the table."""
    launch, loop, blocks = kernel.launch, kernel.main, kernel.blocks(chip)
    waves = "" if launch.grid is None else f", {launch.grid / (blocks * chip.multiprocessors):.2f}"
    here = blocks if launch.grid is None else min(blocks, -(-launch.grid // chip.multiprocessors))
    loads = " ".join(f"{size}x{count}" for size, count in sorted(loop.loads.items(), reverse=True))
    rate = loop.bytes / loop.count * SCHEDULERS * chip.clock * chip.multiprocessors
    kind = "loop" if loop is not kernel.whole else "whole"
    matrix = f", {loop.matrix} matrix" if loop.matrix else ""
    cells = (
        f"`{call.name}`",
        f"{call.times}",
        f"{'?' if launch.grid is None else launch.grid} x {launch.threads}",
        f"{kernel.registers}, {kernel.spilled}",
        f"{kernel.shared}",
        f"{blocks}{waves}",
        f"{kind} of {loop.count}{matrix}",
        loads,
        f"{loop.ahead} B, {loop.ahead * launch.threads * here / 1024:.0f} KiB",
        f"{rate / 1e12:.1f} TB/s, {rate / chip.memory:.1f} of memory's",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arch", default="sm_90", choices=list(CHIPS))
    parser.add_argument("--quant", default="q4", choices=list(SCHEMES))
    parser.add_argument("--rows", type=int, default=1, help="sequences, each with one token")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each sequence")
    parser.add_argument("--only", default="", help="kernels whose names contain this")
    arguments = parser.parse_args()
    if find_nvcc() is None or find_nvdisasm() is None:
        parser.error("nvcc and nvdisasm must be installed (`pip install nvidia-cuda-nvdisasm` brings the latter)")
    target, chip, rows = resolve_gpu("cuda", arguments.arch), CHIPS[arguments.arch], arguments.rows
    pages = rows * -(-arguments.context // PAGE)
    extents = {"n": rows, "b": rows, "m": rows, "p": pages, "b1": rows + 1, "num_pages": pages}
    print(f"{chip.name} ({arguments.arch}), {arguments.quant}, {rows} rows: compiled, not executed\n\n{HEADER}")
    launched = 0
    with tempfile.TemporaryDirectory() as folder:
        for call in calls(arguments.quant, target):
            if arguments.only in call.name:
                for kernel in compiled(call.function, target, extents, Path(folder)):
                    launched += call.times
                    print(row(call, kernel, chip), flush=True)
    print(f"\n{launched} launches")


if __name__ == "__main__":
    main()
