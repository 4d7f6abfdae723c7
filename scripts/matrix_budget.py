"""What the inner loops of the products on matrix units consist of, read back from CUDA's machine code.

    python scripts/matrix_budget.py [--formats q4 f16 ...] [--dtypes float16 bfloat16] [--archs sm_90 ...]

Compiles every tile (`kernels/gpu/matrix_shapes.py`) with nvcc and prints, for each: registers, spills and shared
memory; how many blocks of threads fit on a multiprocessor; and, where nvdisasm is installed (`pip install
nvidia-cuda-nvdisasm`), instructions a multiplication and bytes of shared memory read a multiplication in the loop over
the inputs. Nothing is executed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import tirx

from cupola.compiler import pipeline
from cupola.compiler.cuda import find_nvcc, source_only
from cupola.compiler.gpu_target import resolve_gpu
from cupola.kernels.emit import Arg
from cupola.kernels.gpu.emit import kernel, size_var
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import Linear
from cupola.kernels.gpu.matrix_shapes import Shapes
from cupola.kernels.gpu.matrix_unit import of_cuda
from cupola.kernels.gpu.trait import STORED, Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import Format

TILES = ("few", "some", "many")
SIZE = 4096  # outputs and inputs of the matrix
FORMATS = [fmt.value for fmt in Format if fmt is not Format.Q16]
# Bytes of shared memory and threads of a multiprocessor (CUDA C++ Programming Guide, compute capabilities).
MEMORY = {"sm_80": 167936, "sm_89": 102400, "sm_90": 233472, "sm_100": 233472}
THREADS = {"sm_80": 2048, "sm_89": 1536, "sm_90": 2048, "sm_100": 2048}
REGISTERS = 65536
RESERVED = 1024  # bytes of shared memory of every block that the system takes
# Bytes that a warp reads with one instruction.
READS = {"LDSM.16.M88.4": 512, "LDSM.16.MT88.4": 512, "LDS.128": 512, "LDS.64": 256, "LDS": 128}


@dataclass(frozen=True)
class Report:
    """One tile, compiled for one architecture."""

    arch: str
    threads: int
    shared_bytes: int
    registers: int
    spilled: int
    machine_code: bytes

    @property
    def blocks(self) -> int:
        """Blocks of threads that a multiprocessor has room for."""
        by_registers = REGISTERS // (-(-self.registers // 8) * 8 * self.threads)
        by_memory = MEMORY[self.arch] // (self.shared_bytes + RESERVED)
        return min(by_registers, by_memory, THREADS[self.arch] // self.threads)


def tile_function(fmt: Format, dtype: str, tile: str, *, gated: bool = False) -> tuple[tirx.PrimFunc, int, int]:
    """(a product with one tile, its threads, its bytes of shared memory)."""
    stored = STORED[dtype]
    spec = Linear(
        Packed(fmt, SIZE, SIZE, half=True),
        Ending(SIZE, SIZE // 2 if gated else SIZE, gated=gated),
        stored,
        stored,
        Gpu(1024, 49152, 32, dtype, half=True, matrix=of_cuda(dtype)),
    )
    shapes, n = Shapes.of(spec.matrix, spec.gpu.matrix, stored), size_var("n")
    if shapes is None:
        raise ValueError(f"matrix units do not multiply {fmt.value}")
    chosen = shapes.tiles(spec.halves)[TILES.index(tile)]
    args = {"x": Arg((n, SIZE), stored), "w": Arg(spec.matrix.shape, spec.matrix.dtype)}
    args |= {"y": Arg((n, spec.ending.width), stored)}
    function = kernel("product", args, lambda **spans: spec.on_units(n, spans, chosen))
    return function, chosen.shape.threads, chosen.shared_bytes


def cuda_source(function: tirx.PrimFunc, arch: str) -> str:
    """The kernel as CUDA, through the product's own passes."""
    pipeline.register()
    target = resolve_gpu("cuda", arch).tvm_target()  # type: ignore[arg-type]
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    with target, source_only():
        built = tirx.build(module, target=target, pipeline=pipeline.GPU_PIPELINE)
    return "\n".join(part.inspect_source() for part in built.imports)


def report(fmt: Format, dtype: str, arch: str, tile: str, *, gated: bool = False) -> Report:
    """Compiles one tile. CalledProcessError: nvcc refuses it."""
    function, threads, shared_bytes = tile_function(fmt, dtype, tile, gated=gated)
    with tempfile.TemporaryDirectory() as folder:
        source, code = Path(folder) / "kernel.cu", Path(folder) / "kernel.cubin"
        source.write_text(cuda_source(function, arch))
        command = [str(find_nvcc()), "-cubin", f"-arch={arch}", "-Xptxas", "-v", "-o", str(code), str(source)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
        registers = [int(count) for count in re.findall(r"Used (\d+) registers", said)]
        spilled = sum(int(count) for pair in spills for count in pair)
        return Report(arch, threads, shared_bytes, max(registers), spilled, code.read_bytes())


def find_nvdisasm() -> str | None:
    """NVIDIA's disassembler: on the path, or as PyPI's wheel brings it."""
    wheels = [Path(folder) / "nvidia" / "cu13" / "bin" / "nvdisasm" for folder in sys.path if folder]
    return shutil.which("nvdisasm") or next((str(path) for path in wheels if path.is_file()), None)


def loop(machine_code: bytes, disassembler: str) -> Counter[str]:
    """How often each instruction stands in the loop that multiplies, without those that never execute."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(machine_code)
        text = subprocess.run([disassembler, "-c", str(file)], capture_output=True, text=True, check=True).stdout
    labels: dict[str, int] = {}
    lines: list[str] = []
    loops: list[tuple[int, int]] = []
    for line in text.splitlines():
        if label := re.match(r"\s*\.(L_\w+):", line):
            labels[label[1]] = len(lines)
        elif "@!PT" not in line and (
            instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)", line)
        ):
            lines.append(instruction[1])
            branch = re.search(r"\(\.(L_\w+)\)", instruction[2])
            if instruction[1] == "BRA" and branch and branch[1] in labels:
                loops.append((labels[branch[1]], len(lines)))
    bodies = [Counter(lines[start:end]) for start, end in loops]
    return max(bodies, key=lambda body: sum(count for name, count in body.items() if name.startswith("HMMA")))


def row(fmt: Format, dtype: str, arch: str, tile: str, disassembler: str | None) -> list[str]:
    """One line of the table."""
    found = report(fmt, dtype, arch, tile)
    cells = [fmt.value, dtype, arch, tile, str(found.threads), str(found.registers), str(found.spilled)]
    cells += [str(found.shared_bytes), str(found.blocks)]
    if disassembler is None:
        return cells
    body = loop(found.machine_code, disassembler)
    multiplications = sum(count for name, count in body.items() if name.startswith("HMMA"))
    read = sum(READS.get(name, 0) * count for name, count in body.items())
    total = sum(body.values())
    return [*cells, str(multiplications), str(total), f"{multiplications / total:.2f}", f"{read / multiplications:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["f16", "q8", "q4", "q4s"])
    parser.add_argument("--dtypes", nargs="+", choices=["float16", "bfloat16"], default=["float16"])
    parser.add_argument("--archs", nargs="+", choices=list(MEMORY), default=["sm_90"])
    options = parser.parse_args()
    disassembler = find_nvdisasm()
    head = ["format", "dtype", "arch", "tile", "threads", "registers", "spilled", "shared bytes", "blocks"]
    if disassembler:
        head += ["mma in the loop", "instructions", "share", "bytes read a mma"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for arch in options.archs:
        for dtype in options.dtypes:
            for name in options.formats:
                for tile in TILES:
                    cells = row(Format(name), dtype, arch, tile, disassembler)
                    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
