"""Embedding lookups and gathered rows."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.kernels.cpu import rows
from cupola.quantize.formats import Format
from cupola.quantize.layouts import pack, unpack
from kernels.kernel_driver import build


@pytest.mark.parametrize("fmt", Format)
def test_embedding_is_the_row_of_the_unpacked_table(fmt: Format) -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((70, 64)).astype(np.float32)
    packed = pack(table, fmt)
    ids = np.array([0, 69, 17, 8, 31], np.int32)
    y = np.zeros((5, 64), np.float32)
    build(rows.embed(fmt, 70, 64))(ids, packed, y)
    np.testing.assert_allclose(y, unpack(packed, fmt, (70, 64))[ids], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fmt", [Format.F32, Format.Q8, Format.Q4])
def test_an_embedding_can_be_scaled(fmt: Format) -> None:
    packed = pack(np.random.default_rng(0).standard_normal((70, 64)).astype(np.float32), fmt)
    ids = np.array([2, 69], np.int32)
    y = np.zeros((2, 64), np.float32)
    build(rows.embed(fmt, 70, 64, 8.5))(ids, packed, y)
    np.testing.assert_allclose(y, 8.5 * unpack(packed, fmt, (70, 64))[ids], rtol=1e-6, atol=1e-5)


def test_rows_of_positions_are_added() -> None:
    rng = np.random.default_rng(0)
    x, table = rng.standard_normal((3, 16), np.float32), rng.standard_normal((10, 16), np.float32)
    wanted, y = np.array([9, 0, 4], np.int32), np.zeros((3, 16), np.float32)
    build(rows.add_rows(10, 16))(x, table, wanted, y)
    np.testing.assert_array_equal(y, x + table[wanted])


def test_take() -> None:
    x = np.arange(40, dtype=np.float32).reshape(5, 8)
    wanted = np.array([4, 0, 4], np.int32)
    y = np.zeros((3, 8), np.float32)
    build(rows.take(8))(x, wanted, y)
    assert np.array_equal(y, x[wanted])
