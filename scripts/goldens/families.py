"""Goldens of the tiny models of all families: the tensors that transformers gives them, and its logits everywhere."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from family_models import FAMILIES, token_ids, write


def tensor_shapes(model: PreTrainedModel) -> dict[str, list[int]]:
    """The tensors of a checkpoint as it is saved: under the names that published ones have."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", framework="np") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)


def family_logits(name: str, shapes: dict[str, list[int]]) -> np.ndarray:
    """float32 [PREFILL + DECODE, vocabulary]."""
    with tempfile.TemporaryDirectory() as folder:
        write(name, shapes, Path(folder))
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        if loading["missing_keys"] or loading["unexpected_keys"]:
            raise RuntimeError(f"{name}: missing {loading['missing_keys']}, unexpected {loading['unexpected_keys']}")
        with torch.inference_mode():
            return model.eval()(torch.tensor([token_ids(name)])).logits[0].float().numpy()


def write_families(out: Path) -> None:
    """Writes families.json (the tensors) and family_logits.npz (one array a model)."""
    shapes, logits = {}, {}
    for name, values in FAMILIES.items():
        config = AutoConfig.for_model(**values)
        shapes[name] = tensor_shapes(AutoModelForCausalLM.from_config(config))
        logits[name] = family_logits(name, shapes[name])
    (out / "families.json").write_text(json.dumps(shapes, indent=1) + "\n")
    np.savez_compressed(out / "family_logits.npz", **logits)
