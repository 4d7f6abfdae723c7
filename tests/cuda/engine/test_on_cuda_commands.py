"""What the commands say and choose on a machine with a GPU for CUDA: the stand-in, whose name says what it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cuda_stand_in import environment

from cupola.engine.choice import Machine, choose
from cupola.manifest import Manifest
from numerics.sequence import read_manifest
from tiny_models import TINY_MODELS

NAME = "an interpreter of PTX in place of sm_90"


def said(*arguments: str, arch: str = "sm_90") -> str:
    """What a command says."""
    result = subprocess.run(
        [sys.executable, "-m", "cupola", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(arch),
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(("arch", "runs"), [("sm_90", {"cuda:sm_90"}), ("sm_89", {"cuda:sm_80", "cuda:sm_89"})])
def test_targets_says_what_runs_and_what_auto_is(arch: str, runs: set[str]) -> None:
    text = said("targets", arch=arch)
    rows = [line.split() for line in text.splitlines() if line.startswith("cuda:")]
    assert {row[0] for row in rows if row[-1] == "yes"} == runs
    assert f"--target auto is cuda:{arch} here" in text


def test_doctor_names_the_gpu() -> None:
    assert NAME in said("doctor", "--offline")


def test_auto_compiles_for_the_gpu_and_the_loader_prefers_it(tmp_path: Path) -> None:
    TINY_MODELS[0].write(tmp_path / "tiny")
    out = tmp_path / "out"
    said("compile", str(tmp_path / "tiny"), "-o", str(out), "--target", "auto", "--quant", "f32")
    manifest = read_manifest(out)
    assert manifest.library.target["arch"] == "sm_90"
    assert choose(_with_one_for_the_processor(manifest), Machine.here()).library == manifest.library


def _with_one_for_the_processor(manifest: Manifest) -> Manifest:
    other = manifest.library.model_copy(update={"file": "lib-cpu.so", "target": {"kind": "llvm"}})
    return manifest.model_copy(update={"libraries": (other, manifest.library)})
