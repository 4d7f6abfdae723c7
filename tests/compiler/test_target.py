"""Targets: what `auto` becomes, and which instructions a processor may be asked for."""

from __future__ import annotations

import platform

import pytest
import tvm

from cupola.compiler.config import TargetConfig
from cupola.compiler.target import VNNI_CPUS, CpuTarget, resolve
from cupola.errors import UsageError


def test_auto_is_resolved_to_a_processor_and_its_instructions() -> None:
    target = resolve(TargetConfig())
    assert target.machine == platform.machine().lower()
    assert (target.cpu, target.isa) in {("x86-64-v3", "avx2"), ("generic", "plain")}
    assert target.tvm_target().kind.name == "llvm"


def test_a_named_processor_is_kept() -> None:
    assert resolve(TargetConfig(cpu="x86-64-v2")).cpu == "x86-64-v2"
    assert resolve(TargetConfig(cpu="x86-64-v2")).isa == "plain"


def test_instructions_that_the_processor_lacks_are_refused() -> None:
    with pytest.raises(UsageError, match="avx2"):
        resolve(TargetConfig(cpu="x86-64-v2", isa="avx2"))


@pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="names of x86 processors")
def test_the_best_instructions_of_a_named_processor_are_chosen() -> None:
    assert resolve(TargetConfig(cpu="x86-64-v4")).isa == "avx2"
    for cpu in ("znver4", "alderlake", "cascadelake"):
        assert resolve(TargetConfig(cpu=cpu)).isa == "vnni"
        assert resolve(TargetConfig(cpu=cpu, isa="avx2")).isa == "avx2"
        assert resolve(TargetConfig(cpu=cpu, isa="plain")).isa == "plain"


@pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="names of x86 processors")
@pytest.mark.parametrize("cpu", sorted(VNNI_CPUS))
def test_the_list_of_processors_with_vnni_is_that_of_llvm(cpu: str) -> None:
    features = set(tvm.get_global_func("target.llvm_get_cpu_features")(CpuTarget(cpu, "vnni", "x86_64").tvm_target()))
    assert {"avx512vnni", "avx512vl"} <= features or "avxvnni" in features


def test_native_is_this_machine_with_no_feature_that_it_lacks() -> None:
    target = resolve(TargetConfig(cpu="native"))
    here = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    features = tvm.get_global_func("target.llvm_get_cpu_features")(target.tvm_target())
    assert target.cpu not in {"native", "auto"}
    assert not [feature for feature in features if feature in here and not here[feature]]


def test_hidden_features_are_switched_off_and_recorded() -> None:
    target = CpuTarget("znver4", "avx2", "x86_64", without=("avx512f", "avx512vl"))
    features = set(tvm.get_global_func("target.llvm_get_cpu_features")(target.tvm_target()))
    assert "avx2" in features
    assert not {"avx512f", "avx512vl"} & features
    assert target.describe()["without"] == "avx512f,avx512vl"
