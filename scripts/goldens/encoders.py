"""Goldens of encoders: the pooled vectors of tiny random ones, and those of the default one for texts of many kinds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from tiny_encoders import TINY_ENCODERS, TinyEncoder

_CLASSES = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}


def tiny_vectors(tiny: TinyEncoder) -> np.ndarray:
    """float32 [texts, hidden]: transformers' hidden states, pooled by hand, without normalization."""
    config_class, model_class = _CLASSES[tiny.model_type]
    model = model_class(config_class(**tiny.config(), attn_implementation="eager"), add_pooling_layer=False)
    state = {name: torch.from_numpy(tensor) for name, tensor in tiny.weights().items()}
    model.load_state_dict(state, strict=True)
    model.eval()
    rows = []
    with torch.inference_mode():
        for text in tiny.texts():
            hidden = model(torch.tensor([text])).last_hidden_state[0]
            rows.append({"mean": hidden.mean(dim=0), "cls": hidden[0], "last": hidden[-1]}[tiny.pooling].numpy())
    return np.stack(rows)


def write_encoders(model: Path, inputs: Path, out: Path) -> None:
    """Writes tiny_encoders.npz and embeddings.npz; the texts of the latter come from `inputs`/embedding_texts.json."""
    np.savez_compressed(out / "tiny_encoders.npz", **{tiny.name: tiny_vectors(tiny) for tiny in TINY_ENCODERS})
    texts = json.loads((inputs / "embedding_texts.json").read_text())
    encoder = SentenceTransformer(str(model), device="cpu")
    # One by one: what a batch is padded with shows in the last bits.
    vectors = np.concatenate([encoder.encode([text]) for text in texts])
    np.savez_compressed(out / "embeddings.npz", vectors=vectors)
