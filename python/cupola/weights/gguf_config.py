"""GGUF metadata as a configuration with the keys of Hugging Face's config.json.

Owns the metadata keys that all architectures share and what they mean, rope scaling included; what one architecture
has of its own stands in `gguf_families`.
"""

from __future__ import annotations

import numpy as np

from cupola.errors import ModelError, UnsupportedError
from cupola.weights.gguf_encoders import encoder_config
from cupola.weights.gguf_family import Family
from cupola.weights.gguf_file import GgufFile, Value

_REQUIRED = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
}
_OPTIONAL = {
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "sliding_window": "attention.sliding_window",
    "rope_theta": "rope.freq_base",
}
_PATTERN = "attention.sliding_window_pattern"
_DEFAULT_THETA = 10000.0
_FACTOR_TOLERANCE = 1e-3  # relative; the factors are stored as float32

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
ROPE_FACTORS = "rope_freqs.weight"
_LONG_FACTORS, _SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"

Table = dict[str, object]


def read_config(file: GgufFile, family: Family) -> Table:
    """The configuration of the model in `file`.

    Raises:
        ModelError: a key that every model has is missing or no number.
        UnsupportedError: a rope scaling, or head sizes, that Cupola does not know.
    """
    keys = _Keys(file)
    config: Table = {"model_type": family.model_type, "hidden_act": "silu", **family.fixed}
    for name, key in {**_REQUIRED, **family.epsilon}.items():
        config[name] = keys.required(key)
    for name, key in {**_OPTIONAL, **family.keys}.items():
        value = keys.value(key)
        if value is not None:
            config[name] = value
    config["tie_word_embeddings"] = OUTPUT not in file.tensors
    config |= {name: f"blk.0.{tensor}" in file.tensors for name, tensor in family.flags.items()}
    if EMBEDDING in file.tensors:
        config["vocab_size"] = file.tensors[EMBEDDING].rows
    _complete_heads(keys, config, family)
    config |= _windows(keys)
    config["rope_scaling"] = _rope_scaling(keys, config)
    return config | dict(family.derived(config)) | encoder_config(file, architecture_of(file))


def architecture_of(file: GgufFile) -> str:
    """The value of `general.architecture`."""
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ModelError(f"{file.path} does not name its general.architecture", hint="Convert the model again.")
    return architecture


class _Keys:
    """The metadata of a file behind its architecture's name."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.prefix = f"{architecture_of(file)}."

    def raw(self, key: str) -> Value | None:
        return self.file.metadata.get(self.prefix + key)

    def value(self, key: str) -> int | float | bool | None:
        """A number or a flag; the common one where the file has one a layer."""
        value = self.raw(key)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()
        if not isinstance(value, int | float):
            what = "different values for its layers" if isinstance(value, np.ndarray) else f"the value {value!r}"
            raise UnsupportedError(f"{self.file.path} has {what} as {self.prefix}{key}; Cupola needs one number")
        return value

    def required(self, key: str) -> int | float:
        value = self.value(key)
        if value is None:
            raise ModelError(f"{self.file.path} lacks the metadata {self.prefix}{key}", hint="Convert the model again.")
        return value

    def integer(self, key: str, default: int) -> int:
        value = self.value(key)
        return default if value is None else int(value)


def _complete_heads(keys: _Keys, config: Table, family: Family) -> None:
    """What follows from other sizes where the file does not say; the part of a head that rotates."""
    heads = int(str(config["num_attention_heads"]))
    config.setdefault("num_key_value_heads", heads)
    head_dim = int(str(config.setdefault("head_dim", int(str(config["hidden_size"])) // max(heads, 1))))
    config.setdefault("rope_theta", _DEFAULT_THETA)
    if family.own_head_sizes:
        return
    rotates = keys.integer("rope.dimension_count", head_dim)
    # The converter interleaves whole heads: of one that rotates in part, the order would be anyone's guess.
    same = {"attention.value_length": keys.integer("attention.value_length", head_dim)}
    if family.interleaved:
        same["rope.dimension_count"] = rotates
    for key, got in same.items():
        if got != head_dim:
            raise UnsupportedError(
                f"{keys.file.path} has {keys.prefix}{key} {got}; Cupola knows only the head size, {head_dim}"
            )
    if rotates != head_dim:
        config["partial_rotary_factor"] = rotates / max(head_dim, 1)


def _windows(keys: _Keys) -> Table:
    """Which layers slide: a flag a layer, or one of how many does not."""
    pattern = keys.raw(_PATTERN)
    if pattern is None:
        return {}
    if isinstance(pattern, np.ndarray):
        return {"layer_types": ["sliding_attention" if slides else "full_attention" for slides in pattern]}
    return {"sliding_window_pattern": keys.integer(_PATTERN, 0)}


def _rope_scaling(keys: _Keys, config: Table) -> Table | None:
    tensors = keys.file.tensors
    if _LONG_FACTORS in tensors and _SHORT_FACTORS in tensors:
        return _longrope_scaling(keys)
    if ROPE_FACTORS in tensors:
        return _llama3_scaling(keys.file, int(str(config["head_dim"])), float(str(config["rope_theta"])))
    kind = keys.raw("rope.scaling.type")
    if kind is None or kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise UnsupportedError(
            f"{keys.file.path} has {keys.prefix}rope.scaling.type {kind!r}",
            hint="Cupola reads none, linear, yarn, rope_freqs and rope_factors.",
        )
    scaling: Table = {"rope_type": kind}
    for key, name in {
        "factor": "factor",
        "original_context_length": "original_max_position_embeddings",
        "attn_factor": "attention_factor",
        "yarn_beta_fast": "beta_fast",
        "yarn_beta_slow": "beta_slow",
        "yarn_log_multiplier": "mscale_all_dim",
    }.items():
        value = keys.value(f"rope.scaling.{key}")
        if value is not None:
            scaling[name] = value
    if "factor" not in scaling:
        raise ModelError(f"{keys.file.path} has a {kind} rope scaling without {keys.prefix}rope.scaling.factor")
    return scaling


def _longrope_scaling(keys: _Keys) -> Table:
    """The searched factors; that on cosines and sines follows from the contexts, by the converter's rule and ours."""

    def factors(name: str) -> list[float]:
        rows = keys.file.read_rows(name, 0, keys.file.tensors[name].rows)
        return [float(factor) for factor in np.asarray(rows, np.float32)]

    return {
        "rope_type": "longrope",
        "long_factor": factors(_LONG_FACTORS),
        "short_factor": factors(_SHORT_FACTORS),
        "original_max_position_embeddings": keys.required("rope.scaling.original_context_length"),
    }


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
