"""Every shipped configuration compiles a tiny model for all its targets, or this machine lacks what it says (`make
targets`); a GPU's library of an encoder is machine code like any other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cupola.compiler.compile import compile_model
from cupola.compiler.config import CompileConfig, load
from cupola.compiler.cuda import find_nvcc
from cupola.compiler.gpu_target import resolve_gpu
from cupola.compiler.support import obstacle
from cupola.compiler.target import CpuTarget, resolve_all
from cupola.weights.source import open_checkpoint
from device_checks import nvidia
from device_checks.shapes import compile_shape
from tiny_encoders import TINY_ENCODERS

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "compile_configs").glob("*.toml"))
pytestmark = [
    pytest.mark.skipif(not os.environ.get("CUPOLA_TARGET_ROWS"), reason="`make targets` compiles for minutes"),
    pytest.mark.timeout(1200),  # four architectures, on a machine that has other things to do
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_configuration_compiles(path: Path, tmp_path: Path) -> None:
    config = load(path)
    targets = resolve_all(config.target, config.model.quant)
    lacking = {target.name: why for target in targets if (why := obstacle(target))}
    if lacking:
        assert path.stem == "vulkan" or not isinstance(targets[0], CpuTarget), lacking
        pytest.skip(str(lacking))
    manifest = compile_shape("tiny", config, targets, tmp_path)
    assert len(manifest.libraries) == len(targets)
    for library in manifest.libraries:
        assert (tmp_path / library.file).stat().st_size > 100_000


@pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
def test_an_encoder_compiles_for_cuda_and_spills_nothing(tmp_path: Path) -> None:
    tiny = next(tiny for tiny in TINY_ENCODERS if tiny.name == "modernbert")
    tiny.write(tmp_path / "model")
    targets = [resolve_gpu("cuda", "sm_90")]
    compile_model(open_checkpoint(str(tmp_path / "model")), CompileConfig(), targets, tmp_path / "out", lambda _: None)
    (code,) = nvidia.read_cubins((tmp_path / "out" / "lib.so").read_bytes())
    assert {kernel.name.partition("_kernel")[0] for kernel in code.kernels} >= {"encoder_attention", "encoder_embed"}
    assert not [kernel for kernel in code.kernels if kernel.local_bytes]
