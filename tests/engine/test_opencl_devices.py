"""Which devices OpenCL finds, in which order, and what is said where it finds none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVERS = {"pocl": "libpocl.so.2", "Oclgrind": "/usr/lib/oclgrind/liboclgrind-rt-icd.so"}
TOLD = """
import json
from cupola.engine import native_opencl
from cupola.errors import EngineError

LOADER
try:
    print(json.dumps([(device.platform, device.type) for device in native_opencl.opencl_devices()]))
except EngineError as error:
    print(json.dumps([str(error), error.hint]))
"""


def told(loader: str = "", **variables: str) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", TOLD.replace("LOADER", loader)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **variables},
    )
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_without_a_loader_of_drivers_the_error_says_what_to_install() -> None:
    message, hint = told('native_opencl._LOADER = "libNoOpenCL.so.1"')
    assert "OpenCL cannot be used: libNoOpenCL.so.1" in message
    assert "ocl-icd-libopencl1" in hint


def test_gpus_come_before_processors_unless_somebody_names_one(tmp_path: Path) -> None:
    for name, library in DRIVERS.items():
        (tmp_path / f"{name}.icd").write_text(library + "\n")
    drivers = {"OCL_ICD_VENDORS": str(tmp_path)}
    found = told(**drivers)
    if len(found) != 2 or isinstance(found[0], str):
        pytest.skip("pocl and oclgrind, which says that it is a GPU, are not both installed")
    assert found == [["Oclgrind", "GPU"], ["Portable Computing Language", "processor"]]
    assert told(**drivers, CUPOLA_OPENCL_DEVICE="Portable") == found[::-1]
