"""Targets: what `auto` becomes, and which instructions a processor may be asked for."""

from __future__ import annotations

import platform

import pytest

from cupola.compiler.config import TargetConfig
from cupola.compiler.target import resolve
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
