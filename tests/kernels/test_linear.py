"""Matrix products against NumPy on the same integers, and the promise that a row does not depend on its companions."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear import linear
from cupola.kernels.cpu.linear_integer import MANY_ROWS, WIDE_TILES
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import pack, unpack
from kernels.kernel_driver import INSTRUCTION_SETS, build

FORMATS = [fmt for fmt in Format if fmt is not Format.Q16]  # whose activations are of another kind: test_wide
ROWS = (*sorted(WIDE_TILES), MANY_ROWS - 1, MANY_ROWS, MANY_ROWS + 5, 26)  # every road, every size of the last tile


def quantized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(q, s, what they stand for) of activations, as `activation.quantize` makes them."""
    groups = x.reshape(len(x), -1, GROUP)
    scale = (np.abs(groups).max(axis=-1) / np.float32(127)).astype(np.float32)
    q = np.rint(groups / scale[..., None]).astype(np.int8)
    s = np.stack([scale, q.sum(axis=-1)], axis=-1).astype(np.float32)
    return q.reshape(x.shape), s, (q * scale[..., None].astype(np.float64)).reshape(x.shape)


def reference(spec: LinearSpec, x: np.ndarray, weights: np.ndarray, residual: np.ndarray) -> np.ndarray:
    y = x.astype(np.float64) @ weights.astype(np.float64).T
    if spec.gated:
        gate, up = np.split(y, 2, axis=1)
        y = gate / (1 + np.exp(-gate)) * up
    return y + residual[:, : y.shape[1]] if spec.residual else y


def check(spec: LinearSpec, isa: Isa) -> None:
    rng = np.random.default_rng(spec.outputs)
    packed = pack(rng.standard_normal((spec.outputs, spec.inputs)).astype(np.float32), spec.format)
    weights = unpack(packed, spec.format, (spec.outputs, spec.inputs))
    product = build(linear(spec, isa))
    x = rng.standard_normal((max(ROWS), spec.inputs)).astype(np.float32)
    residual = rng.standard_normal((max(ROWS), spec.width)).astype(np.float32)
    whole = None
    for rows in sorted(ROWS, reverse=True):
        q, s, exact = quantized(x[:rows])
        inputs = [q, s] if spec.format.grouped else [x[:rows].copy()]
        y = np.zeros((rows, spec.width), np.float32)
        product(*inputs, packed, *([residual[:rows].copy()] if spec.residual else []), y)
        expected = reference(spec, exact if spec.format.grouped else x[:rows], weights, residual[:rows])
        np.testing.assert_allclose(y[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-3)
        whole = y if whole is None else whole
        assert np.array_equal(y, whole[:rows]), f"{rows} rows differ in bits from {max(ROWS)}"


@pytest.mark.parametrize("isa", INSTRUCTION_SETS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("fmt", FORMATS)
def test_plain_product(fmt: Format, isa: Isa) -> None:
    check(LinearSpec(fmt, inputs=96, outputs=48), isa)


@pytest.mark.parametrize("fmt", FORMATS)
def test_residual_and_more_groups_than_a_chunk(fmt: Format) -> None:
    check(LinearSpec(fmt, inputs=32 * 19, outputs=32, residual=True), INSTRUCTION_SETS[-1])


@pytest.mark.parametrize("fmt", FORMATS)
def test_gated(fmt: Format) -> None:
    check(LinearSpec(fmt, inputs=64, outputs=64, gated=True), INSTRUCTION_SETS[-1])


@pytest.mark.parametrize("fmt", FORMATS)
def test_outputs_that_do_not_fill_the_last_block(fmt: Format) -> None:
    check(LinearSpec(fmt, inputs=32, outputs=41), INSTRUCTION_SETS[-1])


@pytest.mark.parametrize("isa", INSTRUCTION_SETS, ids=lambda isa: isa.name)
def test_extreme_integers_do_not_overflow(isa: Isa) -> None:
    """The largest codes against the largest activations, where 16-bit sums come closest to their limit."""
    for fmt in (fmt for fmt in Format if fmt.grouped):
        spec = LinearSpec(fmt, inputs=64, outputs=16)
        signs = np.where(np.arange(16) % 2, 1.0, -1.0)[:, None]
        packed = pack((signs * np.ones((16, 64))).astype(np.float32), fmt)
        weights = unpack(packed, fmt, (16, 64))
        q, s, exact = quantized(np.full((1, 64), -3.0, np.float32))
        y = np.zeros((1, 16), np.float32)
        build(linear(spec, isa))(q, s, packed, y)
        np.testing.assert_allclose(y, exact @ weights.T, rtol=1e-5)
