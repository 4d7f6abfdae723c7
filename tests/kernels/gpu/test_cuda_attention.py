"""What NVIDIA's compilers say of attention on matrix units: nothing is executed here."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu_cases import compiled, source

from cupola.compiler.cuda import find_nvcc
from cupola.compiler.gpu_target import resolve_gpu
from cupola.kernels.gpu.attention import Attention, attention
from cupola.kernels.gpu.matrix_unit import of_cuda
from cupola.kernels.gpu.pages import GpuPages, MatrixPages, pages_for_units
from cupola.kernels.gpu.trait import STORED, Gpu
from cupola.kernels.heads import HeadShape

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_100")
ALL = os.environ.get("CUPOLA_GPU_FAMILIES") == "all"


@dataclass(frozen=True)
class Case:
    """Registers of a thread in the grids of tiles and of parts, and bytes that each may spill: where sums take half of
    the registers and more, some addresses find no place."""

    heads: HeadShape
    registers: tuple[int, int]
    spills: tuple[int, int] = (0, 0)
    dtype: str = "float16"
    page_size: int = 16


# Two blocks of 256 threads fit on a multiprocessor with 128 registers, three of 128 threads with 168.
CASES = {
    "llama 3 8b": Case(HeadShape(32, 8, 128), (200, 168)),
    "llama 3 8b, bfloat16": Case(HeadShape(32, 8, 128), (200, 168), dtype="bfloat16", page_size=64, spills=(0, 4)),
    "64": Case(HeadShape(32, 8, 64), (128, 136)),
    "80": Case(HeadShape(32, 32, 80), (168, 144)),
    "96": Case(HeadShape(32, 32, 96), (184, 168)),
    "192": Case(HeadShape(16, 16, 192), (255, 255), (8, 112)),
    "256": Case(HeadShape(16, 8, 256), (255, 255), (112, 32)),
}


def spec_of(case: Case) -> Attention:
    stored = STORED[case.dtype]
    pages = pages_for_units(GpuPages(case.heads, case.page_size, stored))
    assert isinstance(pages, MatrixPages)
    return Attention(pages, Gpu(1024, 49152, 32, case.dtype, half=True, matrix=of_cuda(case.dtype)), stored)


def ptx_of(spec: Attention, folder: Path) -> Path:
    file, ptx = folder / "kernel.cu", folder / "kernel.ptx"
    file.write_text(source(compiled(attention(spec), resolve_gpu("cuda", "sm_80").tvm_target())))
    subprocess.run([str(find_nvcc()), "-ptx", "-w", "-arch=compute_80", "-o", str(ptx), str(file)], check=True)
    return ptx


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first case in PTX."""
    return ptx_of(spec_of(CASES["llama 3 8b"]), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("name", CASES if ALL else list(CASES)[:1])
def test_kernels_keep_within_their_registers_and_shared_memory(name: str, plain: Path, tmp_path: Path) -> None:
    case = CASES[name]
    ptx = plain if name == "llama 3 8b" else ptx_of(spec_of(case), tmp_path)
    for arch in ARCHITECTURES:
        command = [str(Path(str(find_nvcc())).with_name("ptxas")), "-v", f"-arch={arch}", "-o", str(tmp_path / "out")]
        report = subprocess.run([*command, str(ptx)], capture_output=True, text=True, check=True).stderr
        grids = re.findall(
            r"'kernel_kernel(\w*)'.*?(\d+) bytes spill stores.*?Used (\d+) registers.*?(\d+) bytes smem", report, re.S
        )
        assert len(grids) == 3, report
        found = {suffix: (int(spilled), int(used), int(shared)) for suffix, spilled, used, shared in grids}
        for suffix, registers, spills, shared in (
            ("", case.registers[0], case.spills[0], 32768),
            ("_1", case.registers[1], case.spills[1], 8192),
            ("_2", 40, 0, 2048),
        ):
            assert found[suffix][0] <= spills, f"{arch}: {report}"
            assert found[suffix][1] <= registers, f"{arch}: {report}"
            assert found[suffix][2] <= shared, f"{arch}: {report}"


def test_single_rows_load_all_that_they_read_of_pages_in_16_bytes(plain: Path) -> None:
    """Of 32 tokens 16 KiB: 4 tiles of keys with 4 steps of components, 16 tiles of values; and two rows of queries."""
    text = plain.read_text()
    entries = {match[1]: match[2] for match in re.finditer(r"\.entry (\w+)\((.*?)\n}", text, re.S)}
    parts = entries["kernel_kernel_1"]
    assert len(re.findall(r"ld\.global\.nc\.v4\.b32", parts)) == 4 * 4 + 16 + 2 * 4
    assert len(re.findall(r"mma\.sync\.aligned\.m16n8k16", parts)) == 4 * 8 + 16 * 2
    assert not re.findall(r"ld\.global\S*\.[ub](8|16)\b", parts)
    tiles = entries["kernel_kernel"]
    assert len(re.findall(r"mma\.sync\.aligned\.m16n8k16", tiles)) == 8 * 8 + 16 * 4
    assert len(re.findall(r"ld\.shared\.v4\.b32", tiles)) == 64, "one move of 16 bytes for two products"
    assert not re.findall(r"(ld|st)\.shared\S*\.[ub](8|16|32)\b", tiles.replace("ld.shared.v4.b32", ""))
