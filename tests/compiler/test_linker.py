"""Linking for other machines: which command, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from cupola import processor
from cupola.compiler import linker
from cupola.compiler.cpu_target import CpuTarget
from cupola.errors import StorageError

HERE = CpuTarget("generic", "plain", processor.machine())
OTHER = CpuTarget("generic", "plain", "riscv64")
MAC = CpuTarget("generic", "plain", "aarch64", system="macos")


def test_this_machine_takes_its_own_compiler() -> None:
    assert linker.linker_for(HERE) is None


@pytest.mark.parametrize(("host", "package"), [(OTHER, "g++-riscv64-linux-gnu"), (MAC, "lld-19")])
def test_a_missing_linker_is_named(host: CpuTarget, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StorageError, match=host.machine) as caught:
        linker.linker_for(host)
    assert package in str(caught.value.hint)


def test_the_newest_linker_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name in ("ld64.lld-16", "ld64.lld-19") else None)
    assert linker._command(MAC)[0] == "ld64.lld-19"


def test_a_linker_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linker, "_command", lambda _: ("sh", "-c", "echo undefined symbol >&2; exit 1"))
    link = linker.linker_for(MAC)
    assert link is not None
    with pytest.raises(RuntimeError, match="undefined symbol"):
        link("out.dylib", ["a.o"])
