"""Goldens of the tiny random models: transformers' logits at every position."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from tiny_models import TINY_MODELS, TinyModel


def tiny_logits(tiny: TinyModel) -> np.ndarray:
    """float32 [PREFILL + DECODE, vocab]."""
    with tempfile.TemporaryDirectory() as folder:
        tiny.write(Path(folder))
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.inference_mode():
            return model(torch.tensor([tiny.token_ids()])).logits[0].numpy()


def write_tiny(out: Path) -> None:
    """Writes tiny_logits.npz: one array a model."""
    np.savez_compressed(out / "tiny_logits.npz", **{tiny.name: tiny_logits(tiny) for tiny in TINY_MODELS})
