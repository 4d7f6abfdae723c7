"""Every step of a tiny model under oclgrind, which executes OpenCL thread by thread: no two threads race for a place
without a barrier between them, and nobody reads or writes outside of a tensor. `make opencl-checked` runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_cases import TINY, TOLERANCE

from compiled import compiled_folder
from gpu.kinds import config

SIMULATOR = Path("/usr/lib/oclgrind/liboclgrind-rt-icd.so")
FORWARD = Path(__file__).resolve().parents[2] / "scripts" / "device_checks" / "forward.py"
REPORTS = ("data race", "Invalid read", "Invalid write", "divergence", "OCLGRIND")

pytestmark = [
    pytest.mark.families,  # minutes
    pytest.mark.timeout(900),
    pytest.mark.skipif(not SIMULATOR.exists(), reason="oclgrind is not installed (apt-get install oclgrind)"),
]

WRONG = """
import numpy as np
import tvm
from driver import build_kernel, to_device
from tvm.script import tirx as T

@T.prim_func(s_tir=True)
def wrong(a: T.handle):
    T.func_attr({"tirx.is_scheduled": True})
    a_buffer = T.match_buffer(a, (64,), "int32")
    for block in T.thread_binding(1, thread="blockIdx.x"):
        for thread in T.thread_binding(64, thread="threadIdx.x"):
            with T.sblock("wrong"):
                i = T.axis.spatial(64, thread)
                a_buffer[PLACE] = i

build_kernel(wrong, "opencl")["kernel"](to_device(np.zeros(64, np.int32), "opencl"))
tvm.device("opencl", 0).sync()
"""


def reported(*command: str, **variables: str) -> tuple[str, list[str]]:
    """(standard output, what oclgrind reported)."""
    checks = {"OCL_ICD_VENDORS": str(SIMULATOR), "OCLGRIND_DATA_RACES": "1", "OCLGRIND_CHECK_API": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **checks, **variables},
    )
    return done.stdout, [line for line in done.stderr.splitlines() if any(report in line for report in REPORTS)]


@pytest.mark.parametrize("quant", ["f32", "q4"])
def test_no_threads_race_and_nothing_outside_is_touched(quant: str, tmp_path: Path) -> None:
    TINY.write(tmp_path / TINY.name)
    folder = compiled_folder(str(tmp_path / TINY.name), quant, config("opencl"))
    out, reports = reported(str(FORWARD), str(folder))
    assert not reports
    if quant == "f32":
        cpu = compiled_folder(str(tmp_path / TINY.name), quant)
        plain = subprocess.run([sys.executable, str(FORWARD), str(cpu)], stdout=subprocess.PIPE, text=True, check=True)
        differences = np.array(json.loads(out)["logits"]) - np.array(json.loads(plain.stdout)["logits"])
        assert np.abs(differences).max() < TOLERANCE


@pytest.mark.parametrize(("place", "report"), [("i // 2", "data race"), ("i + 32", "Invalid write")])
def test_what_is_wrong_would_be_seen(place: str, report: str, tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text(WRONG.replace("PLACE", place))
    here = Path(__file__).parent
    _, reports = reported(str(script), PYTHONPATH=os.pathsep.join([str(here), str(here.parent)]))
    assert any(report in line for line in reports)
