"""Every row of docs/targets.md, as `make targets` measured it on this machine just before."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from cupola import processor
from cupola.compiler.support import every_target
from device_checks.rows import Row

MEASURED = os.environ.get("CUPOLA_TARGET_ROWS")
pytestmark = pytest.mark.skipif(not MEASURED, reason="`make targets` measures for minutes")
KERNELS = 20  # fewer than a decoder has
ROUNDING = 1e-4  # of a processor without fused multiplication and addition


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    assert MEASURED is not None
    return {name: Row(**row) for name, row in json.loads(Path(MEASURED).read_text()).items()}


def test_every_target_has_a_row(rows: dict[str, Row]) -> None:
    assert sorted(rows) == sorted(target.name for target in every_target())


@pytest.mark.parametrize("name", ["cpu:x86-64", "cpu:x86-64-v3", "cpu:x86-64-v4+avx512vnni"])
def test_pcs(rows: dict[str, Row], name: str) -> None:
    row = rows[name]
    assert row.compiled
    if name.endswith("avx512vnni") and "avx512_vnni" not in processor.flags():
        assert "lacks" in row.missing
        assert not row.executed
    else:
        assert row.executed == "this machine"
        assert row.error == 0 or (name == "cpu:x86-64" and row.error is not None and row.error < ROUNDING)


@pytest.mark.parametrize(
    ("name", "cpu"),
    [
        ("cpu:aarch64", "cortex-a72"),
        ("cpu:aarch64+dotprod", "neoverse-n1"),
        ("cpu:aarch64+dotprod+i8mm", "max"),
    ],
)
def test_arm_processors_are_emulated_and_compute_the_same_bits(rows: dict[str, Row], name: str, cpu: str) -> None:
    assert (rows[name].executed, rows[name].error) == (f"qemu-user, {cpu}", 0), rows[name]


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90", "sm_100"])
def test_cuda_compiles(rows: dict[str, Row], arch: str) -> None:
    row = rows[f"cuda:{arch}"]
    assert row.compiled or "nvcc" in row.missing
    if row.compiled:
        assert row.checked.startswith(f"machine code for {arch}; 0 sources to compile; ")
        assert row.executed
        assert row.error is not None
        assert row.error < 0.1  # of activations in float16; logits are up to 9


@pytest.mark.parametrize(("arch", "wavefront"), [("gfx90a", 64), ("gfx942", 64), ("gfx1100", 32)])
def test_code_objects_of_amd_are_what_the_launcher_expects(rows: dict[str, Row], arch: str, wavefront: int) -> None:
    checked = rows[f"rocm:{arch}"].checked
    assert checked.startswith(f"code object for {arch}, wavefronts of {wavefront}; 0 undefined symbols")
    found = re.search(r"(\d+) of (\d+) kernels take", checked)
    assert found
    assert found[1] == found[2]
    assert int(found[2]) > KERNELS


def test_kernels_for_metal_pass_a_front_end(rows: dict[str, Row]) -> None:
    found = re.search(r"(\d+) of (\d+) kernels pass", rows["metal"].checked)
    assert found
    assert found[1] == found[2]
    assert int(found[2]) > KERNELS
    assert not rows["metal"].executed


@pytest.mark.parametrize("kind", ["webgpu", "opencl"])
def test_what_is_driven_by_cupola_is_executed(rows: dict[str, Row], kind: str) -> None:
    assert rows[kind].executed
    assert rows[kind].error is not None
    assert rows[kind].error < 1e-3


def test_vulkan_says_what_it_lacks(rows: dict[str, Row]) -> None:
    assert "no code generator for vulkan" in rows["vulkan"].missing


def test_kernels_for_opencl_pass_a_front_end(rows: dict[str, Row]) -> None:
    assert rows["opencl"].compiled
    assert rows["opencl"].checked == "0 errors from clang's front end for OpenCL C"
