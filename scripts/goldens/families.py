"""Goldens of the tiny models of all families: the tensors that transformers gives them, and its logits everywhere.

PYTHONPATH=tests python scripts/goldens/families.py --out tests/goldens [NAME...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import internlm2
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from family_models import FAMILIES, Shapes, token_ids, weights, write


def tensor_shapes(model: PreTrainedModel) -> dict[str, list[int]]:
    """The tensors of a checkpoint as it is saved: under the names that published ones have."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", framework="np") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)


def family_logits(name: str, shapes: Shapes) -> np.ndarray:
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


def write_families(out: Path, names: Iterable[str] = FAMILIES) -> None:
    """Writes out/families/NAME.json (the tensors) and NAME.npz (`logits`)."""
    folder = out / "families"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if FAMILIES[name]["model_type"] == "internlm2":
            shapes = internlm2.shapes(FAMILIES[name])
            logits = internlm2.logits(FAMILIES[name], weights(name, shapes), token_ids(name))
        else:
            shapes = tensor_shapes(AutoModelForCausalLM.from_config(AutoConfig.for_model(**FAMILIES[name])))
            logits = family_logits(name, shapes)
        (folder / f"{name}.json").write_text(json.dumps(shapes, indent=1) + "\n")
        np.savez_compressed(folder / f"{name}.npz", logits=logits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the golden files")
    parser.add_argument("names", nargs="*", default=list(FAMILIES), help="models; none: all")
    arguments = parser.parse_args()
    write_families(arguments.out, arguments.names)
