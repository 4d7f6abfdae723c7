"""Names of targets, and what `auto` makes of the accelerators that a machine has."""

from __future__ import annotations

import pytest

from cupola.compiler.detect import choose, parse
from cupola.compiler.target import resolve_all
from cupola.devices import Device
from cupola.errors import UsageError

H200 = Device("cuda", "sm_90", "NVIDIA H200")
LAVAPIPE = Device("webgpu", "", "llvmpipe (Vulkan)", software=True)


def never() -> tuple[Device, ...]:
    raise AssertionError("only auto asks drivers")


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("cpu:x86-64-v3", ["cpu:x86-64-v3"]),
        ("x86-64-v3", ["cpu:x86-64-v3"]),
        ("znver4", ["cpu:znver4"]),
        ("aarch64", ["cpu:aarch64"]),
        ("cpu:x86-64-v3,aarch64+dotprod", ["cpu:x86-64-v3", "cpu:aarch64+dotprod"]),
        ("cuda:sm_90", ["cuda:sm_90"]),
        ("cuda:sm_80,sm_90", ["cuda:sm_80", "cuda:sm_90"]),
        ("rocm", ["rocm:gfx90a", "rocm:gfx942", "rocm:gfx1100"]),
        ("webgpu", ["webgpu"]),
    ],
)
def test_a_name_is_read(name: str, targets: list[str]) -> None:
    config, reason = parse(name, never)
    assert [target.name for target in resolve_all(config)] == targets
    assert reason is None


@pytest.mark.parametrize("name", ["", "gpu", "gpu:sm_90", "CUDA", "pentium4 "])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no target") as caught:
        parse(name, never)
    assert "cuda:sm_90" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["cuda:sm_70", "webgpu:sm_90", "cuda:sm_90,"])
def test_an_architecture_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"target\.arch"):
        resolve_all(parse(name, never)[0])


@pytest.mark.parametrize(
    ("present", "found", "why"),
    [
        ([H200, LAVAPIPE], "cuda:sm_90", "NVIDIA H200, which is sm_90"),
        ([Device("cuda", "sm_86", "A10")], "cuda:sm_80", "A10, which is sm_86"),
        ([Device("cuda", "sm_75", "T4")], "cpu", "T4 is sm_75, older"),
        ([Device("rocm", "gfx942", "AMD gfx942")], "cpu", "AMD gfx942 has no driver in the installed TVM"),
        ([LAVAPIPE], "cpu", "llvmpipe .* is this processor in disguise"),
        ([Device("webgpu", "", "Radeon (Vulkan)")], "webgpu", "Radeon"),
        ([LAVAPIPE, Device("opencl", "", "Arc (Intel)")], "opencl", "OpenCL tells of Arc"),
        ([Device("opencl", "", "EPYC (pocl)", software=True)], "cpu", "EPYC .pocl. is this processor in disguise"),
        ([], "cpu", "no driver tells of a GPU"),
    ],
)
def test_auto_takes_the_best_that_is_there_and_says_why(present: list[Device], found: str, why: str) -> None:
    name, reason = choose(present)
    assert name == found
    config, sentence = parse("auto", lambda: tuple(present))
    assert config == parse(found, never)[0]
    assert sentence == f"--target auto is {found}: {reason}"
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(reason)
