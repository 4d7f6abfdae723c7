"""InternLM 2 in NumPy: the source of its goldens, because transformers has no such model.

After Cai et al., "InternLM2" (2024): a Llama whose projections to queries, keys and values are one tensor, in which for
each key-value head the queries of its group are followed by its key and its value. Computed in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Config = Mapping[str, object]
Weights = Mapping[str, np.ndarray]


def _size(config: Config, key: str) -> int:
    value = config[key]
    assert isinstance(value, int)
    return value


def shapes(config: Config) -> dict[str, list[int]]:
    """The tensors of a checkpoint."""
    hidden, ffn, vocabulary = (_size(config, key) for key in ("hidden_size", "intermediate_size", "vocab_size"))
    heads, keys, dim = (_size(config, key) for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    found = {
        "model.tok_embeddings.weight": [vocabulary, hidden],
        "model.norm.weight": [hidden],
        "output.weight": [vocabulary, hidden],
    }
    for i in range(_size(config, "num_hidden_layers")):
        layer = {
            "attention.wqkv": [(heads + 2 * keys) * dim, hidden],
            "attention.wo": [hidden, heads * dim],
            "attention_norm": [hidden],
            "feed_forward.w1": [ffn, hidden],
            "feed_forward.w2": [hidden, ffn],
            "feed_forward.w3": [ffn, hidden],
            "ffn_norm": [hidden],
        }
        found |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return found


def logits(config: Config, weights: Weights, ids: Sequence[int]) -> np.ndarray:
    """float32 [tokens, vocabulary]."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = w["model.tok_embeddings.weight"][list(ids)]
    for i in range(_size(config, "num_hidden_layers")):
        layer = {name.removeprefix(f"model.layers.{i}."): value for name, value in w.items()}
        x = x + _attention(config, layer, _norm(x, layer["attention_norm.weight"]))
        y = _norm(x, layer["ffn_norm.weight"])
        gate = y @ layer["feed_forward.w1.weight"].T
        up = y @ layer["feed_forward.w3.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ layer["feed_forward.w2.weight"].T
    return (_norm(x, w["model.norm.weight"]) @ w["output.weight"].T).astype(np.float32)


def _norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weight


def _attention(config: Config, layer: Weights, x: np.ndarray) -> np.ndarray:
    heads, keys, dim = (_size(config, key) for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    group = heads // keys
    qkv = (x @ layer["attention.wqkv.weight"].T).reshape(len(x), keys, group + 2, dim)
    q, k, v = qkv[:, :, :group], qkv[:, :, group], qkv[:, :, group + 1]
    q, k = _rotated(q.reshape(len(x), heads, dim)).reshape(q.shape), _rotated(k)
    scores = np.einsum("nkgd,tkd->kgnt", q, k) / np.sqrt(dim)
    scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    seen = np.einsum("kgnt,tkd->nkgd", shares / shares.sum(axis=-1, keepdims=True), v)
    return seen.reshape(len(x), -1) @ layer["attention.wo.weight"].T


def _rotated(x: np.ndarray) -> np.ndarray:
    """[tokens, heads, D] at positions 0, 1, ...; the halves of a head are its pairs."""
    dim = x.shape[-1]
    angles = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
