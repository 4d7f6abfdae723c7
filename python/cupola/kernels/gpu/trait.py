"""What kernels know of a GPU: a few numbers, and no vendor."""

from __future__ import annotations

from dataclasses import dataclass

from cupola.kernels.gpu.matrix_unit import MatrixUnit

# How floats lie in memory: bfloat16 as its bits, because code generators disagree about it.
STORED = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}


@dataclass(frozen=True)
class Gpu:
    """One kind of device.

    Args:
        threads: most threads of a block.
        shared_bytes: memory that the threads of a block share.
        warp: threads that may exchange registers; 1: none.
        dtype: of activations between kernels: float32, float16 or bfloat16. Sums are float32 everywhere, and so is the
            residual stream.
        matrix: instructions for tiles of matrices; None: there are none.
        half: the device's code can name 16-bit floats. Where it cannot, float16 is read by integer arithmetic.
    """

    threads: int = 256
    shared_bytes: int = 16384
    warp: int = 1
    dtype: str = "float32"
    half: bool = False
    matrix: MatrixUnit | None = None

    @property
    def stored(self) -> str:
        """How activations lie in memory."""
        return STORED[self.dtype]
