"""Goldens of encoders: what transformers makes of tiny random ones, and the default one of texts of many kinds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForSequenceClassification

from tiny_encoders import TINY_CLASSIFIERS, TINY_ENCODERS, TinyEncoder


def tiny_vectors(tiny: TinyEncoder) -> np.ndarray:
    """float32 [texts, hidden]: hidden states, pooled by hand, without normalization; of a classifier [texts, labels].

    The checkpoint is read by transformers as it is written, so that the names of its tensors are proven too.
    """
    with tempfile.TemporaryDirectory() as folder:
        tiny.write(Path(folder))
        kind = AutoModelForSequenceClassification if tiny.labels else AutoModel
        model, info = kind.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    missing = [name for name in info["missing_keys"] if tiny.labels or "pooler" not in name]
    assert not missing, missing
    assert not info["unexpected_keys"], info["unexpected_keys"]
    model.eval()
    rows = []
    with torch.inference_mode():
        for text in tiny.texts():
            if tiny.labels:
                types = {"token_type_ids": torch.tensor([tiny.types_of(text)])} if tiny.types > 1 else {}
                rows.append(model(torch.tensor([text]), **types).logits[0].numpy())
                continue
            hidden = model(torch.tensor([text])).last_hidden_state[0]
            rows.append({"mean": hidden.mean(dim=0), "cls": hidden[0], "last": hidden[-1]}[tiny.pooling].numpy())
    return np.stack(rows)


def write_tiny_encoders(out: Path) -> None:
    """Writes tiny_encoders.npz."""
    every = (*TINY_ENCODERS, *TINY_CLASSIFIERS)
    np.savez_compressed(out / "tiny_encoders.npz", **{tiny.name: tiny_vectors(tiny) for tiny in every})


def write_encoders(model: Path, inputs: Path, out: Path) -> None:
    """Writes tiny_encoders.npz and embeddings.npz; the texts of the latter come from `inputs`/embedding_texts.json."""
    write_tiny_encoders(out)
    texts = json.loads((inputs / "embedding_texts.json").read_text())
    encoder = SentenceTransformer(str(model), device="cpu")
    # One by one: what a batch is padded with shows in the last bits.
    vectors = np.concatenate([encoder.encode([text]) for text in texts])
    np.savez_compressed(out / "embeddings.npz", vectors=vectors)


if __name__ == "__main__":
    write_tiny_encoders(Path(__file__).resolve().parents[2] / "tests" / "goldens")
