"""What the hot loops were compiled to: the instructions that they are written for, and no vector spilled to the stack.

A spilled tile runs at half its speed and nothing else tells. The assembly is that of named processors, on whatever x86
machine the tests run.

pytest tests/kernels/test_assembly.py
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping

import pytest
from tvm import tirx

from cupola.compiler.target import CpuTarget
from cupola.kernels.cpu.attention import attention
from cupola.kernels.cpu.attention_step import AttentionSpec
from cupola.kernels.cpu.isa import AVX2, AVX512, VNNI, Isa
from cupola.kernels.cpu.linear import linear
from cupola.kernels.cpu.linear_integer import WIDE_TILES
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.kernels.cpu.pages import HeadShape, PageLayout
from cupola.quantize.formats import GROUP, Format
from kernels.assembly import Loop, innermost_loops
from kernels.kernel_driver import build_module

pytestmark = pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="assembly of x86")

V3 = CpuTarget("x86-64-v3", "avx2", "x86_64")
WITH_VNNI = (
    CpuTarget("x86-64-v4", "vnni", "x86_64", extra=("avx512vnni",)),
    CpuTarget("x86-64-v3", "vnni", "x86_64", extra=("avxvnni",)),
)
WITH_AVX512 = (
    CpuTarget("x86-64-v4", "avx512", "x86_64", extra=("avx512vnni",)),
    CpuTarget("cascadelake", "avx512", "x86_64"),
    CpuTarget("znver4", "avx512", "x86_64"),
)
HEADS = HeadShape(9, 3, 64)

# Spills that are known, by kernel and by what the loop consists of; any other loop has none. A number may only fall: if
# a kernel has become better, lower it.
KNOWN_SPILLS: Mapping[tuple[str, str], int] = {
    ("q8", "64 vpmaddubsw"): 10,
    ("q4", "64 vpmaddubsw"): 7,
    ("q4", "48 vpmaddubsw"): 2,
    ("q4s", "64 vpmaddubsw"): 7,
    ("q4s", "48 vpmaddubsw"): 2,
    ("q3", "64 vpmaddubsw"): 7,
    ("q3", "48 vpmaddubsw"): 13,
    ("q3", "32 vpmaddubsw"): 2,
    ("attention-float16", "19 vfmadd"): 8,
    ("attention-float32", "19 vfmadd"): 8,
    ("attention-float16", "10 vfmadd"): 2,
    ("attention-float32", "10 vfmadd"): 2,
    ("attention-float32", "96 vfmadd"): 97,  # the last columns of rows on their own, unrolled by LLVM
    ("attention-int16", "72 vpmaddwd"): 21,
    ("attention-int16", "12 vpmaddwd"): 1,
}
HOT = dict.fromkeys(["q8", "q4", "q4s", "q3"], "vpmaddubsw") | dict.fromkeys(["f32", "f16", "bf16"], "vfmadd")
HOT |= {"attention-float16": "vfmadd", "attention-float32": "vfmadd", "attention-int16": "vpmaddwd"}


def emitted(name: str) -> tirx.PrimFunc:
    """A kernel of the default model's shapes."""
    if name.startswith("attention-"):
        return attention(AttentionSpec(HEADS, PageLayout(HEADS, 16, name.removeprefix("attention-"))), AVX2)
    return linear(LinearSpec(Format(name), inputs=576, outputs=1536), AVX2)


@functools.cache
def hot_loops(name: str) -> list[Loop]:
    """The innermost loops with the arithmetic of a kernel."""
    loops = innermost_loops(build_module(emitted(name), V3).inspect_source("asm"))
    return [loop for loop in loops if loop.count(HOT[name])]


@pytest.mark.parametrize("name", HOT)
def test_no_vector_is_spilled_in_a_hot_loop(name: str) -> None:
    assert hot_loops(name)
    for loop in hot_loops(name):
        kind = f"{loop.count(HOT[name])} {HOT[name]}"
        known = KNOWN_SPILLS.get((name, kind), 0)
        found = len(loop.spills)
        assert found <= known, (
            f"{name}: the loop of {kind} spills {found} vectors, {known} are known\n{loop.describe()}"
        )


@pytest.mark.parametrize("name", HOT)
def test_no_hot_loop_calls_a_function(name: str) -> None:
    for loop in hot_loops(name):
        assert not loop.count("call"), f"{name}: a call in a hot loop\n{loop.describe()}"


def test_q8_widens_every_product() -> None:
    for loop in hot_loops("q8"):
        assert loop.count("vpmaddwd") == loop.count("vpmaddubsw"), loop.describe()
        assert loop.count("vpsignb") == loop.count("vpmaddubsw"), loop.describe()


@pytest.mark.parametrize("name", ["q4", "q4s", "q3"])
def test_few_bits_add_eight_products_in_16_bits_before_they_widen_them(name: str) -> None:
    for loop in hot_loops(name):
        assert loop.count("vpmaddwd") * 8 == loop.count("vpmaddubsw"), loop.describe()
    assert any(loop.count("vcvtph2ps") and loop.count("vfmadd") for loop in hot_loops(name))


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "attention-float16", "attention-float32"])
def test_float_sums_are_fused(name: str) -> None:
    tiles = [loop for loop in hot_loops(name) if loop.count("vfmadd") in {12, 24}]  # 19 are those of two exponentials
    assert tiles
    for loop in tiles:
        assert not loop.count("vmul") + loop.count("vadd"), loop.describe()


def test_weights_of_16_bits_are_widened_as_they_are_read() -> None:
    assert all(loop.count("vcvtph2ps") for loop in hot_loops("f16"))
    # One instruction for each vector: a shift for the even outputs of a word, a mask for the odd ones.
    assert all(loop.count("vpslld") + loop.count("vpand") + loop.count("vandps") for loop in hot_loops("bf16"))
    assert not any(loop.count("vpmovzxwd") for loop in hot_loops("bf16"))


def test_float16_pages_are_converted_as_they_are_read() -> None:
    assert any(loop.count("vcvtph2ps") and loop.count("vfmadd") >= 12 for loop in hot_loops("attention-float16"))


def vnni_loops(fmt: Format, isa: Isa, target: CpuTarget) -> list[tuple[Loop, list[str]]]:
    """The loops with VNNI's dot products, and these instructions."""
    assembly = build_module(linear(LinearSpec(fmt, 576, 1536), isa), target).inspect_source("asm")
    found = [(loop, [line for line in loop.instructions if "vpdpbusd" in line]) for loop in innermost_loops(assembly)]
    return [(loop, dots) for loop, dots in found if dots]


@pytest.mark.parametrize("target", WITH_VNNI, ids=lambda target: target.cpu)
@pytest.mark.parametrize("fmt", [Format.Q4, Format.Q4S, Format.Q3, Format.Q8])
def test_vnni_adds_four_products_at_once(fmt: Format, target: CpuTarget) -> None:
    loops = vnni_loops(fmt, VNNI, target)
    assert loops
    for loop, _ in loops:
        assert not loop.count("vpmaddubsw") + loop.count("vpmaddwd"), loop.describe()
        assert not loop.spills, loop.describe()


@pytest.mark.parametrize("target", WITH_AVX512, ids=lambda target: target.cpu)
@pytest.mark.parametrize("fmt", [Format.Q4, Format.Q4S, Format.Q3, Format.Q8])
def test_avx512_multiplies_in_64_bytes_by_activations_in_memory(fmt: Format, target: CpuTarget) -> None:
    loops = vnni_loops(fmt, AVX512, target)
    counts = sorted(len(dots) for _, dots in loops)
    # Two loops of the largest tile, one of which asks memory ahead.
    expected = sorted(rows * GROUP // 4 for rows in (WIDE_TILES[0], *WIDE_TILES))
    assert counts[1:] == expected[1:]
    assert counts[0] in (expected[0], 2 * expected[0])  # LLVM may unroll the loop of one row
    for loop, dots in loops:
        assert all("{1to16}" in dot and "%zmm" in dot for dot in dots), loop.describe()
        assert not loop.spills, loop.describe()


@pytest.mark.parametrize(("inputs", "asking"), [(576, WIDE_TILES[:1]), (1536, WIDE_TILES[:-1])])
@pytest.mark.parametrize(("fmt", "lines"), [(Format.Q4S, 5), (Format.Q8, 9)])
def test_tiles_ask_memory_ahead_where_it_pays(fmt: Format, lines: int, inputs: int, asking: tuple[int, ...]) -> None:
    assembly = build_module(linear(LinearSpec(fmt, inputs, 64), AVX512), WITH_AVX512[0]).inspect_source("asm")
    loops = [loop for loop in innermost_loops(assembly) if loop.count("prefetch")]
    assert all(loop.count("prefetch") == lines for loop in loops)
    dots = sorted(sum("vpdpbusd" in line for line in loop.instructions) for loop in loops)
    assert dots == sorted(rows * GROUP // 4 for rows in asking)


def test_loops_are_found_and_their_spills_counted() -> None:
    assembly = """
    .LBB0_1:
        vmovups %ymm0, 32(%rsp)
    .LBB0_2:
        vmovups %ymm1, 64(%rsp)
        vmovups (%rsp), %ymm2
        vmovups %ymm3, (%rsp,%rax)
        vfmadd231ps %ymm1, %ymm2, %ymm3
        jne .LBB0_2
        jl .LBB0_1
        jmp .LBB0_3
    .LBB0_3:
    """
    (loop,) = innermost_loops(assembly)
    assert loop.label == ".LBB0_2"
    assert loop.count("vfmadd") == 1
    assert loop.spills == ["vmovups %ymm1, 64(%rsp)"]
    assert loop.reloads == ["vmovups (%rsp), %ymm2"]
