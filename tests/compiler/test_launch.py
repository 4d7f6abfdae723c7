"""The pass that merges a step's kernels into one launch: same bits, one launch, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op, spec

from cupola.compiler import library, pipeline
from cupola.compiler.launch import single_launch
from cupola.kernels.cpu import activation
from cupola.kernels.cpu.emit import Arg, Span, f32, kernel, let, parallel, region, serial, size_var, splat
from kernels import kernel_driver  # sets up TVM's threads before anything runs

WIDTH = 32


def add_then_double() -> tirx.PrimFunc:
    """Two stages; the second reads, in other rows, what the first wrote."""
    n = size_var("n")

    def body(x: Span, t: Span, y: Span) -> None:
        with region():
            with parallel(n) as row, serial(WIDTH // 8) as j:
                t.store(row * WIDTH + j * 8, let(x.load(row * WIDTH + j * 8) + splat(f32(1.0))))
            with parallel(n) as row, serial(WIDTH // 8) as j:
                mirrored = t.load((n - 1 - row) * WIDTH + j * 8)
                y.store(row * WIDTH + j * 8, let(mirrored * splat(f32(2.0))))

    tensor = Arg((n, WIDTH), "float32")
    return kernel("add_then_double", {"x": tensor, "t": tensor, "y": tensor}, body)


class Network(nn.Module):
    """Alternates the kernel above with a norm, so that storage is reused and extents are shared."""

    def __init__(self) -> None:
        self.weight = nn.Parameter((WIDTH,), "float32")

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        n = x.shape[0]
        out = nn.Tensor.placeholder((n, WIDTH), "float32")
        for _ in range(4):
            _, x = op.tensor_ir_op(add_then_double(), "add_then_double", [x], [out, out])
            x = op.tensor_ir_op(
                activation.normed(WIDTH, activation.NormSpec(1e-5), None), "norm", [x, self.weight], out
            )
        return x


@pytest.fixture(scope="module")
def planned() -> tvm.IRModule:
    signature = {"x": spec.Tensor(["n", WIDTH], "float32"), "$": {"param_mode": "packed", "effect_mode": "none"}}
    module, _ = Network().export_tvm({"forward": signature})
    module["forward"] = module["forward"].with_attr("tir_var_upper_bound", {"n": 64})
    return library.plan(module)


def run(module: tvm.IRModule, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    pipeline.register()
    target = kernel_driver.TARGET.tvm_target()
    built = relax.build(library.lower(module), target, relax_pipeline=None, tir_pipeline=pipeline.CPU_PIPELINE)
    machine = relax.VirtualMachine(built, tvm.cpu())
    return machine["forward"](tvm.runtime.tensor(x), [tvm.runtime.tensor(weight)]).numpy()


def expected(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    y = x.astype(np.float64)
    for _ in range(4):
        y = 2 * (y[::-1] + 1)
        y = y / np.sqrt((y**2).mean(axis=1, keepdims=True) + 1e-5) * weight
    return y


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_the_merged_function_gives_the_same_bits(planned: tvm.IRModule, rows: int) -> None:
    rng = np.random.default_rng(rows)
    x, weight = rng.standard_normal((rows, WIDTH), np.float32), rng.standard_normal(WIDTH, np.float32)
    separate = run(planned, x, weight)
    # Here TVM runs the function, on its own threads.
    merged = run(single_launch(planned, "forward", "runtime.NumThreads"), x, weight)
    assert np.array_equal(separate, merged)
    np.testing.assert_allclose(merged, expected(x, weight), rtol=1e-4, atol=1e-5)


def test_one_call_is_left_and_equal_layers_share_their_stages(planned: tvm.IRModule) -> None:
    merged = single_launch(planned, "forward")
    names = sorted(name.name_hint for name in merged.functions)
    assert names == [
        "add_then_double_stage0",
        "add_then_double_stage1",
        "forward",
        "forward_launch",
        "norm_stage0",
    ]
    assert merged["forward"].script().count("forward_launch(") == 1


def test_code_outside_parallel_loops_is_refused() -> None:
    n = size_var("n")

    def body(x: Span) -> None:
        with serial(n) as i:
            x.put(i, f32(0.0))

    loose = kernel("loose", {"x": Arg((n,), "float32")}, body)

    class Loose(nn.Module):
        def forward(self, n: tirx.Var) -> nn.Tensor:
            return op.tensor_ir_op(loose, "loose", [], nn.Tensor.placeholder((n,), "float32"))

    module, _ = Loose().export_tvm({"forward": {"n": int, "$": {"param_mode": "none", "effect_mode": "none"}}})
    with pytest.raises(ValueError, match="outside its parallel loops"):
        single_launch(library.plan(module), "forward")
