"""The integer peak: the kernel does the work that it is said to do."""

from __future__ import annotations

import numpy as np

from cupola.kernels.cpu.isa import PLAIN
from cupola.kernels.cpu.peak import data_bytes, operations, output_shape, peak_kernel
from kernels.kernel_driver import TARGET, build


def test_every_product_is_computed() -> None:
    """The sums are those of all passes over the column operands, in the 16 bits in which they overflow."""
    data = np.random.default_rng(3).integers(0, 128, data_bytes(PLAIN), np.uint8)
    out = np.zeros(output_shape(2, PLAIN), np.uint8)
    build(peak_kernel(2, PLAIN), TARGET)(data, out)
    vectors = data.reshape(-1, 16, 2).astype(np.int64)
    rows, columns = vectors[:2], vectors[2:].reshape(-1, 4, 16, 2)
    first = (rows[0] * rows[1]).sum(axis=-1)
    passes = operations(PLAIN) // (2 * len(rows) * columns.size)
    sums = first + passes * np.einsum("rvp,lcvp->rcv", rows, columns)
    for thread in out:
        np.testing.assert_array_equal(thread.view(np.int16), sums.astype(np.int16).reshape(8, 16))
