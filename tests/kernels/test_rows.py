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


def test_take() -> None:
    x = np.arange(40, dtype=np.float32).reshape(5, 8)
    wanted = np.array([4, 0, 4], np.int32)
    y = np.zeros((3, 8), np.float32)
    build(rows.take(8))(x, wanted, y)
    assert np.array_equal(y, x[wanted])
