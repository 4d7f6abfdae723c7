"""Which library of a folder is taken, and what is said where none can be."""

from __future__ import annotations

import pytest

from cupola import processor
from cupola.devices import Device
from cupola.engine.backends.scripted import scripted_manifest
from cupola.engine.choice import Machine, choose
from cupola.errors import IncompatibleError
from cupola.manifest import Library, Manifest

V3 = {"kind": "llvm", "cpu": "x86-64-v3", "machine": "x86_64", "needs": "avx2 fma"}
V4 = {"kind": "llvm", "cpu": "x86-64-v4", "machine": "x86_64", "needs": "avx2 avx512_vnni avx512f fma"}
ARM = {"kind": "llvm", "cpu": "aarch64+dotprod", "machine": "aarch64", "needs": "asimd asimddp"}
FLAGS = {
    "x86_64": frozenset({"avx2", "fma", "avx512f", "avx512_vnni"}),
    "aarch64": frozenset({"asimd", "asimddp", "i8mm"}),
}


def cuda(arch: str) -> dict[str, str]:
    return {"kind": "cuda", "arch": arch, "machine": "x86_64", "needs": ""}


def folder(*targets: dict[str, str]) -> Manifest:
    libraries = tuple(Library(file=f"lib-{number}.so", target=target) for number, target in enumerate(targets))
    return scripted_manifest().model_copy(update={"libraries": libraries})


def machine(name: str = "x86_64", *devices: Device, without: tuple[str, ...] = ()) -> Machine:
    return Machine(name, FLAGS[name] - set(without), devices)


@pytest.mark.parametrize(
    ("here", "chosen"),
    [
        (machine(), V4),
        (machine(without=("avx512_vnni",)), V3),
        (machine("aarch64"), ARM),
        (machine("x86_64", Device("cuda", "sm_90", "H200")), V4),
    ],
    ids=["avx512", "avx2", "arm", "gpu-of-no-use"],
)
def test_the_best_library_that_the_machine_can_run_is_taken(here: Machine, chosen: dict[str, str]) -> None:
    assert choose(folder(V3, V4, ARM), here).library.target == chosen
    assert choose(folder(ARM, V4, V3), here).library.target == chosen


def test_the_rest_of_the_manifest_stays() -> None:
    fat = folder(V3, V4)
    chosen = choose(fat, machine())
    assert len(chosen.libraries) == 1
    assert chosen.model_copy(update={"libraries": fat.libraries}) == fat


@pytest.mark.parametrize(
    ("device", "chosen"),
    [("sm_80", "sm_80"), ("sm_86", "sm_80"), ("sm_89", "sm_89"), ("sm_90", "sm_90"), ("sm_103", "sm_100")],
)
def test_machine_code_of_an_earlier_gpu_of_the_generation_will_do(device: str, chosen: str) -> None:
    fat = folder(*(cuda(arch) for arch in ("sm_90", "sm_80", "sm_89", "sm_100")), V3)
    assert choose(fat, machine("x86_64", Device("cuda", device, "a GPU"))).library.target["arch"] == chosen


@pytest.mark.parametrize(("software", "chosen"), [(False, "webgpu"), (True, "llvm")])
def test_a_gpu_goes_before_the_processor_unless_it_is_one(software: bool, chosen: str) -> None:
    here = machine("x86_64", Device("webgpu", "", "an adapter", software))
    gpu = {**cuda(""), "kind": "webgpu"}
    assert choose(folder(V4, gpu), here).library.target["kind"] == chosen
    assert choose(folder(gpu), here).library.target["kind"] == "webgpu"


@pytest.mark.parametrize(
    ("targets", "here", "reason"),
    [
        (
            (V4,),
            machine(without=("avx512f", "avx512_vnni")),
            r"lib-0\.so is for x86-64-v4 x86_64, but .* lacks avx512_vnni, avx512f$",
        ),
        ((ARM,), machine(), r"for aarch64\+dotprod aarch64, but this machine is x86_64 linux$"),
        ((cuda("sm_90"),), machine(), "for sm_90, but this machine has no cuda device$"),
        ((cuda("sm_90"),), machine("x86_64", Device("cuda", "sm_75", "T4")), "for sm_90, but this machine has sm_75$"),
        (
            (cuda("sm_89"),),
            machine("x86_64", Device("cuda", "sm_80", "A100")),
            "for sm_89, but this machine has sm_80$",
        ),
        (({**cuda("gfx942"), "kind": "rocm"},), machine(), "for gfx942, but the installed TVM cannot drive rocm"),
    ],
)
def test_where_none_can_run_every_reason_is_given(targets: tuple[dict[str, str]], here: Machine, reason: str) -> None:
    with pytest.raises(IncompatibleError, match=reason) as caught:
        choose(folder(*targets), here)
    assert "x86-64-v3" in str(caught.value.hint)
    with pytest.raises(IncompatibleError, match=r"pdp11.*; lib-1"):
        choose(folder({**V3, "machine": "pdp11"}, *targets), here)


def test_a_machine_that_tells_no_features_is_trusted() -> None:
    assert choose(folder(V4), Machine("x86_64", frozenset(), ())).library.target == V4


def test_the_operating_system_counts() -> None:
    with pytest.raises(IncompatibleError, match="aarch64 macos, but this machine is aarch64 linux"):
        choose(folder({**ARM, "system": "macos"}), machine("aarch64"))


def test_without_a_machine_it_is_this_one() -> None:
    here = {"kind": "llvm", "machine": processor.machine(), "needs": ""}
    assert choose(folder({**V3, "machine": "pdp11"}, here)).library.target == here
    with pytest.raises(IncompatibleError, match="pdp11"):
        choose(folder({**V3, "machine": "pdp11"}))
