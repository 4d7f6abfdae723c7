"""Targets: what `auto` becomes, and which instructions a processor may be asked for."""

from __future__ import annotations

import platform

import pytest
import tvm

from cupola import processor
from cupola.compiler.config import TargetConfig
from cupola.compiler.cpu_target import AVX512_CPUS, AVX_VNNI_CPUS, LEVELS, CpuTarget, Level, resolve_cpu
from cupola.compiler.target import GpuTarget, resolve, resolve_all
from cupola.errors import UsageError

x86 = pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="names of x86 processors")


def test_auto_is_resolved_to_a_processor_and_its_instructions() -> None:
    target = resolve(TargetConfig())
    assert target.machine == platform.machine().lower()
    assert (target.isa, target.cpu, target.extra) in {(level.isa, level.cpu, level.extra) for level in LEVELS}
    assert target.tvm_target().kind.name == "llvm"


def test_a_named_processor_is_kept() -> None:
    assert resolve(TargetConfig(cpu="x86-64-v2")).cpu == "x86-64-v2"
    assert resolve(TargetConfig(cpu="x86-64-v2")).isa == "plain"


def test_instructions_that_the_processor_lacks_are_refused() -> None:
    with pytest.raises(UsageError, match="avx2"):
        resolve(TargetConfig(cpu="x86-64-v2", isa="avx2"))


@x86
def test_the_best_instructions_of_a_named_processor_are_chosen() -> None:
    assert resolve(TargetConfig(cpu="x86-64-v4")).isa == "avx2"
    for cpu, best in (("znver4", "avx512"), ("alderlake", "vnni"), ("cascadelake", "avx512")):
        assert resolve(TargetConfig(cpu=cpu)).isa == best
        assert resolve(TargetConfig(cpu=cpu, isa="vnni")).isa == "vnni"
        assert resolve(TargetConfig(cpu=cpu, isa="avx2")).isa == "avx2"
        assert resolve(TargetConfig(cpu=cpu, isa="plain")).isa == "plain"


@x86
@pytest.mark.parametrize("cpu", sorted(AVX512_CPUS | AVX_VNNI_CPUS))
def test_the_lists_of_processors_with_vnni_are_those_of_llvm(cpu: str) -> None:
    features = CpuTarget(cpu, "vnni", "x86_64").features()
    assert ({"avx512vnni", "avx512vl"} <= features) == (cpu in AVX512_CPUS)
    assert "avxvnni" in features or cpu not in AVX_VNNI_CPUS


@x86
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: f"{level.isa}-{level.cpu}")
def test_auto_takes_the_best_kind_that_a_machine_is(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "flags", lambda: level.flags | {"sse2"})
    target = resolve(TargetConfig.model_validate({"isa": level.isa}))
    assert (target.cpu, target.extra) == (level.cpu, level.extra)
    assert set(target.describe()["needs"].split()) == level.flags
    assert LEVELS.index(level) >= min(i for i, other in enumerate(LEVELS) if other.flags <= level.flags)
    if level.isa == "plain":
        with pytest.raises(UsageError, match="this machine"):
            resolve(TargetConfig(isa="avx512"))


def test_native_is_this_machine_with_no_feature_that_it_lacks() -> None:
    target = resolve(TargetConfig(cpu="native"))
    here = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    assert target.cpu not in {"native", "auto"}
    assert not [feature for feature in target.features() if feature in here and not here[feature]]
    assert set(target.describe()["needs"].split()) <= processor.flags() or not processor.flags()


def test_hidden_features_are_switched_off_and_not_needed() -> None:
    target = CpuTarget("znver4", "avx2", "x86_64", without=("avx512f", "avx512vl"))
    assert "avx2" in target.features()
    assert not {"avx512f", "avx512vl"} & target.features()
    needs = target.describe()["needs"].split()
    assert "avx2" in needs
    assert "avx512f" not in needs


@pytest.mark.parametrize(
    ("cpu", "best"), [("aarch64", "plain"), ("aarch64+dotprod", "dotprod"), ("aarch64+dotprod+i8mm", "i8mm")]
)
def test_a_processor_of_another_architecture_is_compiled_for_by_name(cpu: str, best: str) -> None:
    target = resolve_cpu(cpu, "auto")
    assert (target.isa, target.machine) == (best, "aarch64")
    assert str(target.tvm_target().attrs["mtriple"]) == "aarch64-linux-gnu" or processor.machine() == "aarch64"
    assert {"asimd", *cpu.replace("dotprod", "asimddp").split("+")[1:]} == set(target.describe()["needs"].split())


def test_features_beyond_a_processors_name_count() -> None:
    assert resolve_cpu("x86-64-v4+avx512vnni", "auto").isa == "avx512"
    with pytest.raises(UsageError, match="avx512"):
        resolve_cpu("x86-64-v4", "avx512")


@pytest.mark.parametrize("flags", [("asimd", "asimddp", "i8mm"), ("asimd", "asimddp"), ("asimd",)])
def test_auto_goes_by_the_features_of_an_arm_processor(flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "flags", lambda: frozenset(flags))
    monkeypatch.setattr(processor, "machine", lambda: "aarch64")
    target = resolve_cpu("auto", "auto")
    assert target.isa == {3: "i8mm", 2: "dotprod", 1: "plain"}[len(flags)]


@pytest.mark.parametrize("kind", ["cuda", "rocm", "metal", "vulkan", "webgpu", "opencl"])
def test_a_gpu_target_is_one_that_tvm_takes(kind: str) -> None:
    for target in resolve_all(TargetConfig.model_validate({"kind": kind})):
        assert isinstance(target, GpuTarget)
        made = target.tvm_target()
        assert made.kind.name == kind
        assert int(made.attrs["max_num_threads"]) == target.threads
        assert int(made.attrs["thread_warp_size"]) == target.warp
        assert target.describe()["kind"] == kind
        assert target.name.split(":")[0] == kind


def test_several_names_are_several_targets_and_never_the_same_twice() -> None:
    wanted = TargetConfig.model_validate({"kind": "cuda", "arch": ["sm_80", "sm_90"]})
    assert [target.describe()["arch"] for target in resolve_all(wanted)] == ["sm_80", "sm_90"]
    with pytest.raises(UsageError, match="twice"):
        resolve_all(TargetConfig(cpu=("x86-64-v3", "x86-64-v3")))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kind": "cuda", "arch": "sm_20"}, "sm_20"),
        ({"kind": "webgpu", "arch": "sm_90"}, "no architecture of webgpu"),
        ({"kind": "metal", "dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_a_gpu_that_nobody_knows_is_refused(values: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        resolve_all(TargetConfig.model_validate(values))


def test_activations_are_of_the_schemes_floats() -> None:
    def dtype(kind: str, quant: str) -> str:
        return resolve(TargetConfig.model_validate({"kind": kind}), quant).describe()["dtype"]

    assert [dtype("cuda", quant) for quant in ("q4", "f16", "bf16", "f32")] == [
        "float16",
        "float16",
        "bfloat16",
        "float32",
    ]
    assert [dtype("metal", quant) for quant in ("q4", "bf16", "f32")] == ["float16", "float16", "float32"]
    assert dtype("webgpu", "q4") == "float32"
