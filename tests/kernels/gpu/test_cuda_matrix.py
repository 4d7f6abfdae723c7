"""What nvcc and ptxas say of the tiles of matrix units: no spills, and room for as many blocks of threads as meant."""

from __future__ import annotations

import pytest
import tvm

from cupola.compiler import pipeline
from cupola.compiler.cuda import find_nvcc
from cupola.compiler.gpu_target import resolve_gpu
from cupola.kernels.gpu.matrix_shapes import SHARED_BYTES
from cupola.quantize.formats import Format
from matrix_budget import report, tile_function

NEEDS_NVCC = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")

# Blocks of threads on one multiprocessor. `python scripts/matrix_budget.py` prints the whole table.
MEANT = [
    (Format.Q4, "float16", "sm_90", "few", 3),
    (Format.Q4, "bfloat16", "sm_90", "many", 1),
    (Format.Q8, "float16", "sm_80", "some", 2),
    (Format.Q3, "bfloat16", "sm_89", "many", 1),
    (Format.F16, "float16", "sm_100", "many", 1),
]


@NEEDS_NVCC
@pytest.mark.parametrize(("fmt", "dtype", "arch", "tile", "blocks"), MEANT)
def test_tiles_keep_within_their_registers_and_shared_memory(
    fmt: Format, dtype: str, arch: str, tile: str, blocks: int
) -> None:
    found = report(fmt, dtype, arch, tile, gated=fmt is Format.Q8)
    assert found.spilled == 0
    assert found.blocks >= blocks


@pytest.mark.parametrize("fmt", [fmt for fmt in Format if fmt is not Format.Q16])
@pytest.mark.parametrize("tile", ["few", "some", "many"])
def test_every_architecture_has_the_shared_memory_that_a_tile_asks_for(fmt: Format, tile: str) -> None:
    assert tile_function(fmt, "float16", tile)[2] <= SHARED_BYTES


def test_the_launcher_asks_for_the_shared_memory_of_a_tile() -> None:
    """More than 48 KiB a block has to be asked for: TVM's runtime does that by the launch's last parameter."""
    function, _, shared_bytes = tile_function(Format.Q4, "float16", "many")
    pipeline.register()
    target = resolve_gpu("cuda", "sm_90").tvm_target()
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    with target:
        module = tvm.tirx.transform.BindTarget(target)(module)
        host = str(pipeline.to_functions()(module)["kernel"])
    assert f"T.int64({shared_bytes}), launch_params=" in host
    assert '"tirx.use_dyn_shared_memory"]' in host
