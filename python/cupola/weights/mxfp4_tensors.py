"""MXFP4 in a Hugging Face folder, as gpt-oss has its experts.

A stack X of matrices is two tensors of bytes: X_blocks [count, rows, K/32, 16], two codes each, the first in the lower
four bits, and X_scales [count, rows, K/32]. It is presented as X.weight [count, rows, K].
"""

from __future__ import annotations

import numpy as np

from cupola.errors import ModelError
from cupola.quantize.formats import GROUP, Format, Quantized
from cupola.quantize.mxfp4 import LARGEST
from cupola.quantize.rounding import dequantize
from cupola.weights.checkpoint import Keeping, TensorInfo
from cupola.weights.safetensors_files import HINT_AGAIN, SafetensorsFiles

BLOCKS, SCALES = "_blocks", "_scales"


class Mxfp4Stack:
    """One such stack.

    Raises (on construction):
        KeyError: there are no scales.
        ModelError: blocks and scales do not fit each other.
    """

    def __init__(self, files: SafetensorsFiles, stack: str) -> None:
        self._files, self._stack = files, stack
        blocks, scales = files.shape(stack + BLOCKS), files.shape(stack + SCALES)
        if len(blocks) != 4 or blocks[3] * 2 != GROUP or scales != blocks[:3]:
            raise ModelError(
                f"tensors {stack}{BLOCKS} of shape {list(blocks)} and {stack}{SCALES} of shape {list(scales)} are no "
                "matrices of MXFP4",
                hint=HINT_AGAIN,
            )
        count, self._rows, self._groups, _ = blocks
        shape = (count, self._rows, self._groups * GROUP)
        self.info = TensorInfo(f"{stack}.weight", shape, Format.MXFP4, "MXFP4", Keeping.EXACT)

    def rows(self, start: int, stop: int, *, exact: bool) -> np.ndarray | Quantized:
        """Rows of all matrices, one after the other. ModelError: a scale is no number."""
        groups = self._groups
        packed = self._files.read(self._stack + BLOCKS, slice(start * groups, stop * groups)).reshape(-1, GROUP // 2)
        scales = self._files.read(self._stack + SCALES, slice(start, stop))
        if scales.max(initial=0) > LARGEST:
            raise ModelError(f"tensor {self._stack}{SCALES} holds a scale that is no number", hint=HINT_AGAIN)
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(stop - start, groups * GROUP)
        matrix = Quantized(Format.MXFP4, codes, scales)
        return dequantize(matrix) if exact else matrix
