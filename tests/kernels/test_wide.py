"""Products of q16 against NumPy's integers, and their rounding: exact within a group, the same in any company."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.kernels.cpu.activation import quantize
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear import linear
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.quantize.formats import Format
from cupola.quantize.layouts import pack, unpack
from cupola.quantize.wide import LIMIT
from kernels.kernel_driver import INSTRUCTION_SETS, TARGETS, build

INPUTS, OUTPUTS = 96, 41


def weights(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((OUTPUTS, INPUTS)).astype(np.float32)


def test_weights_come_back_within_half_a_step() -> None:
    matrix = weights(np.random.default_rng(0))
    matrix[3] = 0
    back = unpack(pack(matrix, Format.Q16), Format.Q16, matrix.shape)
    step = np.abs(matrix).max(axis=1, keepdims=True) / LIMIT
    assert (np.abs(back - matrix) <= 0.501 * step).all()
    assert not back[3].any()


def test_activations_come_back_within_half_a_step() -> None:
    x = np.random.default_rng(1).standard_normal((5, INPUTS)).astype(np.float32)
    x[2, 32:64] = 0
    q, s = np.zeros(x.shape, np.int16), np.zeros((5, INPUTS // 32), np.float32)
    build(quantize(INPUTS, "int16"))(x, q, s)
    assert np.abs(q.astype(int)).max() == LIMIT
    back = q.reshape(5, -1, 32) * s[..., None]
    assert (np.abs(back - x.reshape(5, -1, 32)) <= 0.501 * s[..., None] + 1e-12).all()


@pytest.mark.parametrize("isa", INSTRUCTION_SETS, ids=lambda isa: isa.name)
def test_products(isa: Isa) -> None:
    """Codes as large as they can be, so that a sum that left 32 bits would show; the bits of a row on its own."""
    rng = np.random.default_rng(2)
    matrix, rows = np.sign(weights(rng)), 21
    product = build(linear(LinearSpec(Format.Q16, INPUTS, OUTPUTS), isa), TARGETS[isa])
    q = np.where(rng.random((rows, INPUTS)) < 0.5, -LIMIT, LIMIT).astype(np.int16)
    q[0] = matrix[0] * LIMIT
    s = rng.uniform(0.5, 2.0, (rows, INPUTS // 32)).astype(np.float32)
    packed = pack(matrix, Format.Q16)
    y = np.zeros((rows, 48), np.float32)
    product(q, s, packed, y)
    x = (q.reshape(rows, -1, 32) * s[..., None].astype(np.float64)).reshape(rows, -1)
    np.testing.assert_allclose(y[:, :OUTPUTS], x @ matrix.T.astype(np.float64), rtol=1e-5, atol=1e-2)
    assert not y[:, OUTPUTS:].any()
    alone = np.zeros((1, 48), np.float32)
    for row in range(rows):
        product(q[row : row + 1], s[row : row + 1], packed, alone)
        np.testing.assert_array_equal(alone[0], y[row])
