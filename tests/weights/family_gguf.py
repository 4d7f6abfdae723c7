"""Tiny models of `family_models` as GGUF files, written as llama.cpp's converter writes them.

Names of tensors come from the `gguf` library's own table, which llama.cpp's converter uses too; the rest, the order of
rows and what is added to norms, is restated here from the converter's rules, independently of the reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import gguf
import numpy as np
from checkpoint_files import finish, interleave
from gguf import MODEL_ARCH, GGUFWriter

from cupola.models import registry
from cupola.models.spec import DecoderSpec
from family_models import FAMILIES, YARN, golden_shapes, weights

Weights = Mapping[str, np.ndarray]
Config = Mapping[str, object]


def _kept(weights: Weights, _: DecoderSpec) -> Weights:
    return weights


def _llama(weights: Weights, spec: DecoderSpec) -> Weights:
    """Rows of q and k with the two halves of a head in turn."""
    heads = {".q_proj.": spec.num_heads, ".k_proj.": spec.num_kv_heads}
    found = dict(weights)
    for name, value in weights.items():
        for part, count in heads.items():
            if part in name:
                found[name] = interleave(value.reshape(len(value), -1), count).reshape(value.shape)
    return found


def _gemma(weights: Weights, _: DecoderSpec) -> Weights:
    return {name: value + np.float32(1) if name.endswith("norm.weight") else value for name, value in weights.items()}


def _gpt2(weights: Weights, _: DecoderSpec) -> Weights:
    turned = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
    return {name: np.ascontiguousarray(value.T) if name.endswith(turned) else value for name, value in weights.items()}


def _neox(weights: Weights, spec: DecoderSpec) -> Weights:
    """All queries, all keys, all values."""
    found = dict(weights)
    for name, value in weights.items():
        if ".query_key_value." in name:
            parts = value.reshape(spec.num_heads, 3, spec.head_dim, -1)
            found[name] = np.concatenate([parts[:, i] for i in range(3)]).reshape(value.shape)
    return found


def _internlm2(weights: Weights, spec: DecoderSpec) -> Weights:
    """The fused tensor taken apart, then as a Llama's."""
    found = {}
    group = spec.num_heads // spec.num_kv_heads
    for name, value in weights.items():
        if "wqkv" not in name:
            found[name] = value
            continue
        parts = value.reshape(spec.num_kv_heads, group + 2, spec.head_dim, -1)
        q, k, v = parts[:, :group], parts[:, group], parts[:, group + 1]
        for part, rows in (("q", q), ("k", k), ("v", v)):
            new = name.replace("attention.wqkv", f"self_attn.{part}_proj")
            found[new] = np.ascontiguousarray(rows.reshape(-1, value.shape[-1]))
    return _llama(found, spec)


def _stacked(weights: Weights, _: DecoderSpec) -> Weights:
    """Experts that are kept one by one as one tensor of each kind."""
    found: dict[str, np.ndarray] = {}
    stacks: dict[str, list[np.ndarray]] = {}
    for name, value in weights.items():
        if "expert_gate." in name:
            found[name] = value[0]
        elif match := re.fullmatch(r"(.*\.experts)\.\d+(\..*)", name):
            stacks.setdefault(match[1] + match[2], []).append(value)
        else:
            found[name] = value
    return found | {name: np.stack(values) for name, values in stacks.items()}


def _granite_moe(weights: Weights, spec: DecoderSpec) -> Weights:
    """Gates and ups apart, as a Llama otherwise."""
    found = {}
    kinds = {"block_sparse_moe.input_linear": "mlp.experts", "shared_mlp.input_linear": "mlp.shared_expert"}
    downs = {"block_sparse_moe.output_linear": "mlp.experts", "shared_mlp.output_linear": "mlp.shared_expert"}
    for name, value in weights.items():
        kind = next((kind for kind in (*kinds, *downs) if kind in name), None)
        if kind in kinds:
            for part, half in zip(("gate_proj", "up_proj"), np.split(value, 2, axis=-2), strict=True):
                found[name.replace(kind, f"{kinds[kind]}.{part}")] = half
        elif kind is not None:
            found[name.replace(kind, f"{downs[kind]}.down_proj")] = value
        else:
            found[name] = value
    return _llama(found, spec)


def _gpt_oss(weights: Weights, _: DecoderSpec) -> Weights:
    """Gates and ups, which lie in turn, apart; matrices turned round."""
    found = {}
    for name, value in weights.items():
        if ".experts." not in name:
            found[f"{name}.weight" if name.endswith(".sinks") else name] = value
            continue
        stem, kind = (name.removesuffix("_bias"), "bias") if name.endswith("_bias") else (name, "weight")
        rows = value if kind == "bias" else np.ascontiguousarray(value.swapaxes(1, 2))
        if stem.endswith("gate_up_proj"):
            for part, half in (("gate_proj", rows[:, 0::2]), ("up_proj", rows[:, 1::2])):
                found[f"{stem.replace('gate_up_proj', part)}.{kind}"] = np.ascontiguousarray(half)
        else:
            found[f"{stem}.{kind}"] = rows
    return found


def _deepseek(weights: Weights, spec: DecoderSpec) -> Weights:
    """What makes keys and values of the latent apart, the former turned round; a bias's own name."""
    assert spec.latent is not None
    shape, found = spec.latent.shape, {}
    for name, value in _stacked(weights, spec).items():
        if ".kv_b_proj." in name:
            parts = value.reshape(shape.heads, shape.plain + shape.value, shape.latent)
            found[name.replace("kv_b", "k_b")] = np.ascontiguousarray(parts[:, : shape.plain].swapaxes(1, 2))
            found[name.replace("kv_b", "v_b")] = np.ascontiguousarray(parts[:, shape.plain :])
        else:
            found[name.replace("_correction_bias", "_correction.bias")] = value
    return found


def _glm_of_authors(weights: Weights, _: DecoderSpec) -> Weights:
    """q, k and v in one tensor, as in folders whose code came with them."""
    found = dict(weights)
    for name in weights:
        if ".q_proj." in name:
            parts = [found.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            layer, kind = name.split(".")[2], name.rpartition(".")[2]
            found[f"transformer.encoder.layers.{layer}.self_attention.query_key_value.{kind}"] = np.concatenate(parts)
    return {name.removeprefix("transformer."): value for name, value in found.items()}


def _head_norms_stacked(weights: Weights, _: DecoderSpec) -> Weights:
    """Norms that are a tensor for each head as one tensor."""
    found: dict[str, np.ndarray] = {}
    stacks: dict[str, list[np.ndarray]] = {}
    for name, value in weights.items():
        if match := re.fullmatch(r"(.*_layernorm)\.norms\.\d+(\..*)", name):
            stacks.setdefault(match[1] + match[2], []).append(value)
        else:
            found[name] = value
    return found | {name: np.stack(values) for name, values in stacks.items()}


def _granite4(weights: Weights, spec: DecoderSpec) -> Weights:
    """Gates and ups apart, and a Llama otherwise."""
    found = {}
    for name, value in weights.items():
        if "shared_mlp.input_linear" in name:
            for part, half in zip(("gate_proj", "up_proj"), np.split(value, 2), strict=True):
                found[name.replace("shared_mlp.input_linear", f"mlp.{part}")] = half
        else:
            found[name.replace("shared_mlp.output_linear", "mlp.down_proj")] = value
    return _llama(found, spec)


@dataclass(frozen=True)
class Case:
    """How one tiny model becomes a GGUF file.

    Args:
        arch: llama.cpp's architecture.
        convert: what the converter does to weights.
        changes: config values that a GGUF file cannot say, as llama.cpp assumes them.
        differs: why llama.cpp makes another model of the tiny file; empty: it does not.
        metadata: metadata keys, behind the architecture's name, that only this family has.
    """

    arch: MODEL_ARCH
    convert: Callable[[Weights, DecoderSpec], Weights] = _kept
    changes: Config = field(default_factory=dict)
    metadata: Mapping[str, int | float | bool | str | list[bool]] = field(default_factory=dict)
    differs: str = ""


_LATENT: Mapping[str, int | float | bool] = {
    "attention.kv_lora_rank": 32,
    "attention.key_length": 48,
    "attention.value_length": 32,
    "attention.key_length_mla": 64,
    "attention.value_length_mla": 32,
    "rope.dimension_count": 16,
    "leading_dense_block_count": 1,
    "expert_feed_forward_length": 32,
    "expert_count": 8,
    "expert_shared_count": 2,
    "expert_used_count": 3,
    "expert_weights_scale": 1.5,
}
_SCALES: Mapping[str, int | float | str] = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 64,
}

# The component of a head of 16 that turns so often in 64 positions is 3, or just below: llama.cpp takes 1 turn,
# whatever a file says, which is a component of 2.002, and rounds that up. gpt-oss does not round.
_WHOLE = 0.32210844082948986

CASES: Mapping[str, Case] = {
    "llama-biases": Case(MODEL_ARCH.LLAMA, _llama),
    "llama-yarn": Case(
        MODEL_ARCH.LLAMA,
        _llama,
        metadata=_SCALES,
    ),
    "qwen2": Case(MODEL_ARCH.QWEN2),
    "qwen3": Case(MODEL_ARCH.QWEN3),
    "gemma": Case(MODEL_ARCH.GEMMA, _gemma),
    "gemma2": Case(
        MODEL_ARCH.GEMMA2,
        _gemma,
        changes={"query_pre_attn_scalar": 16},
        metadata={"attention.sliding_window": 16, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0},
    ),
    "gemma3": Case(
        MODEL_ARCH.GEMMA3,
        _gemma,
        changes={"query_pre_attn_scalar": 16},
        metadata={
            "attention.sliding_window": 16,
            "attention.sliding_window_pattern": [True, True, False],
            "rope.freq_base": 1e6,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
    ),
    "phi": Case(MODEL_ARCH.PHI2, metadata={"rope.dimension_count": 16}),
    "phi3": Case(
        MODEL_ARCH.PHI3,
        metadata={"attention.sliding_window": 24, "rope.dimension_count": 16},
        differs="it has windows of Phi 3 switched off",
    ),
    "phi3-longrope": Case(
        MODEL_ARCH.PHI3,
        metadata={
            "attention.sliding_window": 0,
            "rope.dimension_count": 32,
            "rope.scaling.original_context_length": 16,
            "rope.scaling.attn_factor": 1.118,
        },
    ),
    "smollm3": Case(MODEL_ARCH.SMOLLM3, _llama, changes={"no_rope_layers": None}, metadata={"rope.freq_base": 2e6}),
    "olmo2": Case(MODEL_ARCH.OLMO2),
    "olmo3": Case(
        MODEL_ARCH.OLMO2,
        metadata={
            "attention.sliding_window": 16,
            "attention.sliding_window_pattern": [True, False],
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 64,
        },
    ),
    "granite": Case(
        MODEL_ARCH.GRANITE,
        _llama,
        metadata={"embedding_scale": 3.0, "attention.scale": 0.2, "residual_scale": 0.4, "logit_scale": 2.5},
    ),
    "stablelm": Case(MODEL_ARCH.STABLELM, metadata={"use_parallel_residual": False, "rope.dimension_count": 16}),
    "stablelm-parallel": Case(
        MODEL_ARCH.STABLELM, metadata={"use_parallel_residual": True, "rope.dimension_count": 16}
    ),
    "cohere": Case(
        MODEL_ARCH.COMMAND_R, metadata={"logit_scale": 0.25, "rope.scaling.type": "none", "rope.freq_base": 5e5}
    ),
    "cohere2": Case(
        MODEL_ARCH.COHERE2,
        metadata={
            "logit_scale": 0.25,
            "attention.sliding_window": 16,
            "attention.sliding_window_pattern": [True, False],
        },
    ),
    "glm4": Case(MODEL_ARCH.GLM4, metadata={"rope.dimension_count": 16}),
    "starcoder2": Case(MODEL_ARCH.STARCODER2, changes={"sliding_window": None}),
    "gpt2": Case(MODEL_ARCH.GPT2, _gpt2),
    "gpt-neox": Case(MODEL_ARCH.GPTNEOX, _neox, metadata={"use_parallel_residual": True, "rope.dimension_count": 16}),
    "gpt-neox-serial": Case(
        MODEL_ARCH.GPTNEOX, _neox, metadata={"use_parallel_residual": False, "rope.dimension_count": 16}
    ),
    "mixtral": Case(
        MODEL_ARCH.LLAMA,
        lambda weights, spec: _llama(_stacked(weights, spec), spec),
        changes={"sliding_window": None},
        metadata={"expert_count": 5, "expert_used_count": 2, "rope.freq_base": 1e6},
    ),
    "qwen2-moe": Case(
        MODEL_ARCH.QWEN2MOE,
        _stacked,
        metadata={
            "expert_count": 6,
            "expert_used_count": 3,
            "expert_feed_forward_length": 32,
            "expert_shared_feed_forward_length": 64,
        },
    ),
    "qwen3-moe": Case(
        MODEL_ARCH.QWEN3MOE,
        _stacked,
        metadata={"expert_count": 9, "expert_used_count": 4, "expert_feed_forward_length": 48},
    ),
    "granite-moe": Case(
        MODEL_ARCH.GRANITE_MOE,
        _granite_moe,
        metadata={
            "expert_count": 4,
            "expert_used_count": 2,
            "embedding_scale": 3.0,
            "attention.scale": 0.2,
            "residual_scale": 0.4,
            "logit_scale": 2.5,
        },
    ),
    "granite-moe-shared": Case(
        MODEL_ARCH.GRANITE_MOE,
        _granite_moe,
        metadata={
            "expert_count": 4,
            "expert_used_count": 3,
            "expert_shared_feed_forward_length": 48,
            "embedding_scale": 1.0,
            "attention.scale": 1.0,
            "residual_scale": 0.4,
            "logit_scale": 1.0,
        },
    ),
    "olmoe": Case(MODEL_ARCH.OLMOE, _stacked, metadata={"expert_count": 8, "expert_used_count": 3}),
    "gpt-oss": Case(
        MODEL_ARCH.GPT_OSS,
        _gpt_oss,
        changes={"rope_parameters": YARN | {"truncate": False, "beta_slow": _WHOLE}},
        metadata={
            "expert_count": 4,
            "expert_used_count": 2,
            "expert_feed_forward_length": 96,
            "attention.sliding_window": 16,
            **_SCALES,
            "rope.scaling.yarn_beta_slow": _WHOLE,
        },
    ),
    "internlm2": Case(MODEL_ARCH.INTERNLM2, _internlm2),
    "deepseek2": Case(
        MODEL_ARCH.DEEPSEEK2,
        _deepseek,
        changes={"topk_method": "greedy"},
        metadata={**_LATENT, "expert_gating_func": 1},
        differs="only models of some numbers of layers may lack a latent of queries",
    ),
    "deepseek3": Case(
        MODEL_ARCH.DEEPSEEK2,
        _deepseek,
        changes={"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.7}},
        metadata={
            **_LATENT,
            **_SCALES,
            "attention.q_lora_rank": 32,
            "expert_gating_func": 2,
            "expert_group_count": 4,
            "expert_group_used_count": 2,
            "expert_weights_norm": True,
            "rope.scaling.yarn_log_multiplier": 0.07,
        },
    ),
    "glm": Case(MODEL_ARCH.CHATGLM, _glm_of_authors, metadata={"rope.dimension_count": 16}),
    "exaone4": Case(
        MODEL_ARCH.EXAONE4,
        metadata={"attention.sliding_window": 16, "attention.sliding_window_pattern": [True, False]},
        differs="only models of 64 layers have windows",
    ),
    "mistral": Case(MODEL_ARCH.MISTRAL3, _llama, changes={"sliding_window": None}),
    "ministral3": Case(
        MODEL_ARCH.MISTRAL3,
        _llama,
        changes={"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.7, "llama_4_scaling_beta": 0.1}},
        metadata={**_SCALES, "rope.scaling.yarn_log_multiplier": 0.7, "attention.temperature_scale": 0.1},
    ),
    "cohere-norms": Case(
        MODEL_ARCH.COMMAND_R,
        metadata={"logit_scale": 0.25, "rope.scaling.type": "none", "rope.freq_base": 5e5},
        differs="only models of 64 layers or more have norms of heads",
    ),
    "stablelm-norms": Case(
        MODEL_ARCH.STABLELM,
        _head_norms_stacked,
        metadata={"use_parallel_residual": False, "rope.dimension_count": 16},
    ),
    "granite4": Case(
        MODEL_ARCH.GRANITE,
        _granite4,
        metadata={
            "embedding_scale": 3.0,
            "attention.scale": 0.2,
            "residual_scale": 0.4,
            "logit_scale": 2.5,
            "rope.scaling.finetuned": True,
        },
    ),
}


COMPARED = sorted(name for name, case in CASES.items() if not case.differs)


def family_config(name: str) -> dict[str, object]:
    """The config.json of the model that the case's file describes."""
    return {k: v for k, v in (FAMILIES[name] | CASES[name].changes).items() if v is not None}


def family_spec(name: str) -> DecoderSpec:
    """The model that the case's file describes."""
    spec = registry.read(family_config(name))[1]
    assert isinstance(spec, DecoderSpec)
    return spec


def family_weights(name: str) -> Weights:
    """Its tensors, under Hugging Face names."""
    return weights(name, golden_shapes(name))


def older_deepseek2() -> Case:
    """DeepSeek-V2 as files of before 2025-04 have it: one matrix for keys and values, no sizes but those of heads."""
    sizes = {"attention.key_length": 64, "attention.value_length": 32}
    metadata = {key: value for key, value in _LATENT.items() if not key.endswith("_mla")} | sizes
    return replace(CASES["deepseek2"], convert=_stacked, metadata=metadata)


def write_family_gguf(path: Path, name: str, case: Case | None = None) -> None:
    """Writes a model as its case says, or as this one does, with its matrices in float32."""
    case, spec, config = case or CASES[name], family_spec(name), family_config(name)
    arch = gguf.MODEL_ARCH_NAMES[case.arch]
    writer = GGUFWriter(path, arch)
    epsilon = "layer_norm_epsilon" if spec.norm.centered else "layer_norm_rms_epsilon"
    keys: dict[str, int | float | bool | str | list[bool]] = {
        "context_length": spec.max_context,
        "embedding_length": spec.hidden_size,
        "block_count": spec.num_layers,
        "feed_forward_length": spec.intermediate_size,
        "attention.head_count": spec.num_heads,
        "attention.head_count_kv": spec.num_kv_heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
        f"attention.{epsilon}": spec.norm.eps,
        **case.metadata,
    }
    for suffix, value in keys.items():
        key = f"{arch}.{suffix}"
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    names = gguf.get_tensor_name_map(case.arch, spec.num_layers)
    for tensor, value in case.convert(family_weights(name), spec).items():
        mapped = names.get_name(tensor, try_suffixes=(".weight", ".bias"))
        assert mapped is not None, tensor
        writer.add_tensor(mapped, value)
    parameters = config.get("rope_parameters")
    if isinstance(parameters, dict) and "long_factor" in parameters:
        for which in ("long", "short"):
            factors = np.array(parameters[f"{which}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{which}.weight", factors)
    _add_tokenizer(writer, spec.vocab_size)
    finish(writer)


def _add_tokenizer(writer: GGUFWriter, size: int) -> None:
    """As many tokens as the model has: llama.cpp loads no file with others."""
    special = ("<unk>", "<s>", "</s>")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*special, *(f"\u2581t{i}" for i in range(len(special), size))])
    writer.add_token_scores([-float(i) for i in range(size)])
    writer.add_token_types(
        [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.NORMAL] * (size - 3)]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
