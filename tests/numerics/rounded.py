"""Tiny models with the weights of a scheme, in float32: what differs from them is arithmetic, not rounded weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from cupola.quantize.formats import Format
from cupola.quantize.rounding import dequantize, quantize
from tiny_models import TinyModel

_LAYERS = {"q8": Format.Q8, "q4": Format.Q4}  # other matrices are q8 then


def write_rounded(model: TinyModel, quant: str, folder: Path) -> None:
    """Writes a tiny model whose weights are as the scheme rounds them, in float32."""
    model.write(folder)
    weights = load_file(folder / "model.safetensors")
    for name, matrix in weights.items():
        if matrix.ndim == 2:
            weights[name] = _rounded(matrix, quant, in_layer="layers" in name)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _rounded(matrix: np.ndarray, quant: str, in_layer: bool) -> np.ndarray:
    if quant == "f16":
        return matrix.astype(np.float16).astype(np.float32)
    if quant == "bf16":
        bits = matrix.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return dequantize(quantize(matrix, _LAYERS[quant] if in_layer else Format.Q8))
