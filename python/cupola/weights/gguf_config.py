"""GGUF metadata as a configuration with the keys of Hugging Face's config.json.

Owns the names of metadata keys and what they mean, rope scaling included; which architectures can be built is for
`models` to say, so an architecture unknown here keeps its name as `model_type` and whatever keys it shares.
"""

from __future__ import annotations

import numpy as np

from cupola.errors import ModelError, UnsupportedError
from cupola.weights.gguf_file import GgufFile, Value

# metadata key behind "<architecture>." -> config key
_KEYS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}
_REQUIRED = (
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
    "context_length",
)
_DEFAULT_THETA = 10000.0
_FACTOR_TOLERANCE = 1e-3  # relative; the factors are stored as float32

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
ROPE_FACTORS = "rope_freqs.weight"


def read_config(file: GgufFile) -> dict[str, object]:
    """The configuration of the model in `file`.

    Raises:
        ModelError: a key that every Llama model has is missing or no number.
        UnsupportedError: a rope scaling, or head sizes, that Cupola does not know.
    """
    architecture = architecture_of(file)
    config: dict[str, object] = {"model_type": architecture, "hidden_act": "silu"}
    for key, name in _KEYS.items():
        value = file.metadata.get(f"{architecture}.{key}")
        if value is not None:
            config[name] = _number(file, f"{architecture}.{key}", value)
    config["tie_word_embeddings"] = OUTPUT not in file.tensors
    config["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    config["mlp_bias"] = "blk.0.ffn_gate.bias" in file.tensors
    if EMBEDDING in file.tensors:
        config["vocab_size"] = file.tensors[EMBEDDING].rows
    if architecture == "llama":
        _complete_llama(file, config)
    return config


def architecture_of(file: GgufFile) -> str:
    """The value of `general.architecture`."""
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ModelError(f"{file.path} does not name its general.architecture", hint="Convert the model again.")
    return architecture


def _complete_llama(file: GgufFile, config: dict[str, object]) -> None:
    for key in _REQUIRED:
        if _KEYS[key] not in config:
            raise ModelError(f"{file.path} lacks the metadata llama.{key}", hint="Convert the model again.")
    if _integer(file, "llama.expert_count", 0):
        config["model_type"] = "mixtral"  # GGUF calls a mixture of experts a llama too
    heads = int(str(config["num_attention_heads"]))
    config.setdefault("num_key_value_heads", heads)
    head_dim = int(str(config.setdefault("head_dim", int(str(config["hidden_size"])) // max(heads, 1))))
    for key in ("rope.dimension_count", "attention.value_length"):
        got = _integer(file, f"llama.{key}", head_dim)
        if got != head_dim:
            raise UnsupportedError(f"{file.path} has llama.{key} {got}; Cupola knows only the head size, {head_dim}")
    theta = float(str(config.setdefault("rope_theta", _DEFAULT_THETA)))
    scaling = _rope_scaling(file)
    if ROPE_FACTORS in file.tensors:
        scaling = _llama3_scaling(file, head_dim, theta)
    config["rope_scaling"] = scaling


def _rope_scaling(file: GgufFile) -> dict[str, object] | None:
    kind = file.metadata.get("llama.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise UnsupportedError(
            f"{file.path} has llama.rope.scaling.type {kind!r}", hint="Cupola reads none, linear, yarn and rope_freqs."
        )
    scaling: dict[str, object] = {"rope_type": kind}
    for key, name in {
        "factor": "factor",
        "original_context_length": "original_max_position_embeddings",
        "attn_factor": "attention_factor",
        "yarn_beta_fast": "beta_fast",
        "yarn_beta_slow": "beta_slow",
    }.items():
        value = file.metadata.get(f"llama.rope.scaling.{key}")
        if value is not None:
            scaling[name] = _number(file, f"llama.rope.scaling.{key}", value)
    if "factor" not in scaling:
        raise ModelError(f"{file.path} has a {kind} rope scaling without llama.rope.scaling.factor")
    return scaling


def _llama3_scaling(file: GgufFile, head_dim: int, theta: float) -> dict[str, object] | None:
    """The parameters of Llama 3's scaling, from the divisor of each frequency that the file stores.

    With w = 1 / wavelength, Llama 3 divides a frequency by 1 where w is high, by `factor` where it is low, and
    between them 1 / divisor = 1 / factor + (1 - 1 / factor) * s, where s = (original * w - low) / (high - low). So
    s is a straight line in w; original, low and high follow from it up to a common scale, which `low = 1` settles.
    """
    divisors = np.asarray(file.read_rows(ROPE_FACTORS, 0, file.tensors[ROPE_FACTORS].rows), np.float64)
    if len(divisors) == head_dim // 2:
        frequencies = theta ** -(np.arange(0, head_dim, 2) / head_dim) / (2 * np.pi)
        factor = divisors.max()
        if factor == 1 and divisors.min() == 1:
            return None
        between = (divisors > 1 + _FACTOR_TOLERANCE) & (divisors < factor * (1 - _FACTOR_TOLERANCE))
        if factor > 1 and divisors.min() >= 1 and between.sum() >= 2:
            smooth = (1 / divisors[between] - 1 / factor) / (1 - 1 / factor)
            slope, offset = np.polyfit(frequencies[between], smooth, 1)
            high = round(1 - 1 / offset, 2)
            original = round(slope * (high - 1))
            expected = 1 / (1 / factor + (1 - 1 / factor) * np.clip((original * frequencies - 1) / (high - 1), 0, 1))
            if np.allclose(expected, divisors, rtol=_FACTOR_TOLERANCE):
                return {
                    "rope_type": "llama3",
                    "factor": round(float(factor), 4),
                    "low_freq_factor": 1.0,
                    "high_freq_factor": float(high),
                    "original_max_position_embeddings": int(original),
                }
    raise UnsupportedError(
        f"{file.path} has {ROPE_FACTORS} with factors that do not follow Llama 3's rope scaling",
        hint="Use the model's Hugging Face folder in place of the GGUF file.",
    )


def _number(file: GgufFile, key: str, value: Value) -> int | float:
    """A number, or the common value of one number a layer."""
    if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
        value = value[0].item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        what = "different values for its layers" if isinstance(value, np.ndarray) else f"the value {value!r}"
        raise UnsupportedError(f"{file.path} has {what} as {key}; Cupola needs one number")
    return value


def _integer(file: GgufFile, key: str, default: int) -> int:
    return int(_number(file, key, file.metadata.get(key, default)))
