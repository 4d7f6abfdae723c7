"""Products on matrix units: numerically with the instruction taken apart, and structurally in CUDA's machine code."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, build, packed
from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, bits, f32, let
from cupola.kernels.gpu.emit import Block, kernel, madd, shared, size_var, split, sync, u32
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import Linear
from cupola.kernels.gpu.linear_matrix import MatrixTile
from cupola.kernels.gpu.matrix_unit import A_WORDS, B_WORDS, SUMS, WARP, MatrixUnit, Multiply
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import Format

pytestmark = NEEDS_GPU


def taken_apart(block: Block) -> Multiply:
    """What PTX says of mma.m16n8k16 with bfloat16, by reading the other lanes' words out of shared memory."""
    words = shared(block.threads * (A_WORDS + B_WORDS), "uint32")
    warp, lane = split(block.thread, WARP)
    g, t = split(lane, 4)

    def word(place: int, lane_: Expr) -> Expr:
        return words.at(place * block.threads + warp * WARP + lane_)

    def floats(code: Expr) -> tuple[Expr, Expr]:
        return bits(let(code << u32(16)), "float32"), bits(let(code & u32(0xFFFF0000)), "float32")

    def multiply(a: Span, a_at: int, b: Span, b_at: int, c: Span, c_at: int) -> None:
        sync()
        for i in range(A_WORDS):
            words.put(i * block.threads + block.thread, a.at(a_at + i))
        for i in range(B_WORDS):
            words.put((A_WORDS + i) * block.threads + block.thread, b.at(b_at + i))
        sync()
        for i in range(SUMS):
            output = let(t * 2 + i % 2)
            total = f32(0.0)
            for k in range(8):  # words of two inputs
                a_word = word(i // 2 + 2 * (k // 4), let(g * 4 + k % 4))
                b_word = word(A_WORDS + k // 4, let(output * 4 + k % 4))
                for x, y in zip(floats(a_word), floats(b_word), strict=True):
                    total = madd(x, y, total)
            c.put(c_at + i, let(c.at(c_at + i) + total))

    return multiply


def rounded(values: np.ndarray) -> np.ndarray:
    """To bfloat16."""
    codes = values.astype(np.float32).view(np.uint32)
    return ((codes + 0x7FFF + ((codes >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def product(spec: Linear, tile: MatrixTile) -> tirx.PrimFunc:
    """The product with one shape of tiles, small enough for WebGPU."""
    n = size_var("n")
    args = {
        "x": Arg((n, spec.matrix.inputs), spec.x),
        "w": Arg(spec.matrix.shape, spec.matrix.dtype),
        **spec.ending.args(n),
        "y": Arg((n, spec.ending.width), spec.y),
    }
    return kernel("product", args, lambda **spans: spec.on_units(n, spans, tile))


UNIT = MatrixUnit("bfloat16", taken_apart)


@pytest.mark.parametrize("fmt", [Format.BF16, Format.Q4])
def test_products_are_those_of_numpy(fmt: Format) -> None:
    matrix, rng, n = Packed(fmt, 80, 64, half=False), np.random.default_rng(1), 41
    spec = Linear(matrix, Ending(80, 80, bias=True, residual="float32"), "float32", "float32", Gpu(matrix=UNIT))
    words, weights = packed(fmt, 80, 64)
    x, residual = (rng.standard_normal((n, k)).astype(np.float32) for k in (64, 80))
    bias, y = rng.standard_normal(80).astype(np.float32), np.full((n, 80), np.nan, np.float32)
    build(product(spec, MatrixTile(matrix, UNIT, 1, across=1, down=2, row_tiles=1)))(x, words, bias, residual, y)
    expected = rounded(x).astype(np.float64) @ rounded(weights).T + bias + residual
    np.testing.assert_allclose(y, expected, atol=2e-4)


def test_gated_products_meet_their_halves() -> None:
    matrix, rng, n = Packed(Format.Q4, 96, 32, half=False), np.random.default_rng(2), 21
    spec = Linear(matrix, Ending(96, 48, gated=True), "float32", "float32", Gpu(matrix=UNIT))
    words, weights = packed(Format.Q4, 96, 32)
    x, y = rng.standard_normal((n, 32)).astype(np.float32), np.full((n, 48), np.nan, np.float32)
    build(product(spec, MatrixTile(matrix, UNIT, 2, across=2, down=1, row_tiles=1)))(x, words, y)
    gate, up = np.split(rounded(x).astype(np.float64) @ rounded(weights).T, 2, axis=1)
    np.testing.assert_allclose(y, gate / (1 + np.exp(-gate)) * up, atol=2e-4)
