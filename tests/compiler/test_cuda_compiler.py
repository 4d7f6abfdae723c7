"""The surroundings in which TVM calls nvcc."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cupola.compiler import cuda

pytestmark = pytest.mark.skipif(cuda.find_nvcc() is None, reason="nvcc is not installed")


def test_nvcc_is_found_where_the_path_does_not_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cuda.compiler():  # loads TVM's runtime, for which it may need a C compiler
        pass
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("nvcc") is None
    with cuda.compiler():
        assert shutil.which("nvcc") is not None
    assert os.environ["PATH"] == str(tmp_path)


def test_settings_of_others_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_CUDA_PTXAS_REG_LEVEL", "10")
    monkeypatch.delenv("TVM_CUDA_NVCC_NO_FAST_MATH", raising=False)
    with cuda.compiler():
        assert os.environ["TVM_CUDA_PTXAS_REG_LEVEL"] == "5"
        assert os.environ["TVM_CUDA_NVCC_NO_FAST_MATH"] == "1"
    assert os.environ["TVM_CUDA_PTXAS_REG_LEVEL"] == "10"
    assert "TVM_CUDA_NVCC_NO_FAST_MATH" not in os.environ
