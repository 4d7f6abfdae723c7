"""The engine on CUDA in every test run: a tiny q4 model, in a process of its own. `make cuda-engine` has all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cuda_stand_in import environment

ENGINE = Path(__file__).with_name("engine")
CHOSEN = ("test_on_cuda_decodes.py", "test_on_cuda_schemes.py::test_logits_are_those_of_the_rounded_weights[q4]")


def test_a_tiny_q4_model_on_tvms_own_runtime_for_cuda() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda_engine"]
    command += [str(ENGINE / name) for name in CHOSEN]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout
