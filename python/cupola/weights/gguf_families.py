"""llama.cpp's architectures, one entry each: where a GGUF file keeps what a Hugging Face folder keeps elsewhere.

Plain values that say what llama.cpp's converter writes; those of encoders are in `gguf_encoders`. `gguf_config` reads
the metadata by them, `gguf` the tensors; whether the model can be built is for `models` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from cupola.errors import UnsupportedError
from cupola.weights.gguf_encoders import ENCODERS
from cupola.weights.gguf_experts import EXPERT_KEYS, EXPERT_PARTS, MIXTURES
from cupola.weights.gguf_family import PARTS, TOP, Family, Values
from cupola.weights.gguf_latent import DEEPSEEK2

_AROUND = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_LLAMA_FLAGS = {"attention_bias": "attn_q.bias", "mlp_bias": "ffn_gate.bias"}
_LAYER_NORM_EPS = {"layer_norm_eps": "attention.layer_norm_epsilon"}


def _gemma_query_scale(largest: int) -> Callable[[Values], Values]:
    """The scale of queries is not in the file: it follows from the head's size, but for the largest of a generation."""

    def derived(config: Values) -> Values:
        hidden, heads = int(str(config["hidden_size"])), int(str(config["num_attention_heads"]))
        wide = config["num_hidden_layers"] == largest
        return {"query_pre_attn_scalar": hidden // heads if wide else config["head_dim"]}

    return derived


def _olmo3_has_windows(config: Values) -> Values:
    return {"model_type": "olmo3"} if config.get("sliding_window") else {}


def _mixture(config: Values) -> Values:
    """GGUF calls a mixture of experts a llama too."""
    return {"model_type": "mixtral"} if config.get("num_local_experts") else {}


def _ministral3(config: Values) -> Values:
    """Queries that grow with their position belong to the scaling of positions; llama.cpp takes `mscale` for 1."""
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, Mapping):
        return {}
    growth = config.get("attention_temperature", 0.0)
    return {"rope_scaling": {**scaling, "mscale": 1.0, "llama_4_scaling_beta": growth}}


def _glm(config: Values) -> Values:
    """The projections are one tensor where the folder was in the form of its authors."""
    return {"attention_bias": bool(config["attention_bias"] or config["fused_bias"])}


def _granite(config: Values) -> Values:
    """A file says that positions were not trained with."""
    return {"position_embedding_type": "rope" if config.get("rope_finetuned", True) else "nope"}


_GEMMA = Family("gemma", norm_offset=1.0, flags={"attention_bias": "attn_q.bias"})
_CAPS = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"}
_COHERE = Family(
    "cohere",
    epsilon=_LAYER_NORM_EPS,
    keys={"logit_scale": "logit_scale"},
    flags={"attention_bias": "attn_q.bias", "use_qk_norm": "attn_q_norm.weight"},
)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        **ENCODERS,
        **MIXTURES,
        "llama": Family(
            "llama",
            keys=EXPERT_KEYS,
            flags=_LLAMA_FLAGS,
            derived=_mixture,
            parts=PARTS | EXPERT_PARTS,
            interleaved=True,
        ),
        # Hugging Face's InternLM 2 has q, k and v in one tensor; the converter takes it apart, and a Llama is left.
        "internlm2": Family("llama", flags=_LLAMA_FLAGS, interleaved=True),
        "granite": Family(
            "granite",
            keys={
                "attention_multiplier": "attention.scale",
                "embedding_multiplier": "embedding_scale",
                "residual_multiplier": "residual_scale",
                "logits_scaling": "logit_scale",
                "rope_finetuned": "rope.scaling.finetuned",
            },
            flags=_LLAMA_FLAGS,
            derived=_granite,
            interleaved=True,
        ),
        "mistral3": Family(
            "ministral3",
            keys={"attention_temperature": "attention.temperature_scale"},
            derived=_ministral3,
            interleaved=True,
        ),
        "deepseek2": DEEPSEEK2,
        "smollm3": Family("smollm3", flags=_LLAMA_FLAGS, interleaved=True),
        "qwen2": Family("qwen2"),
        "qwen3": Family("qwen3", flags={"attention_bias": "attn_q.bias"}),
        "gemma": _GEMMA,
        "gemma2": Family(
            "gemma2",
            keys=_CAPS,
            derived=_gemma_query_scale(46),
            parts=PARTS | _AROUND,
            norm_offset=1.0,
        ),
        "gemma3": Family(
            "gemma3_text",
            keys=_CAPS | {"rope_local_base_freq": "rope.freq_base_swa"},
            derived=_gemma_query_scale(62),
            parts=PARTS | _AROUND,
            norm_offset=1.0,
        ),
        "phi2": Family(
            "phi",
            epsilon=_LAYER_NORM_EPS,
            fixed={"hidden_act": "gelu_new"},
            top=TOP | {"output_norm": "model.final_layernorm"},
            parts=PARTS | {"attn_output": "self_attn.dense", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"},
        ),
        "phi3": Family("phi3", parts=PARTS | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}),
        "olmo2": Family(
            "olmo2",
            flags={"attention_bias": "attn_q.bias"},
            derived=_olmo3_has_windows,
            parts=PARTS | _AROUND,
        ),
        "exaone4": Family("exaone4", parts=PARTS | _AROUND),
        "command-r": _COHERE,
        "cohere2": Family("cohere2", _COHERE.epsilon, _COHERE.keys, {"attention_bias": "attn_q.bias"}),
        "chatglm": Family(
            "glm",
            flags={"attention_bias": "attn_q.bias", "fused_bias": "attn_qkv.bias"},
            derived=_glm,
            parts=PARTS | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
        ),
        "glm4": Family(
            "glm4",
            flags={"attention_bias": "attn_q.bias"},
            parts=PARTS
            | {
                "post_attention_norm": "post_self_attn_layernorm",
                "post_ffw_norm": "post_mlp_layernorm",
                "ffn_up": "mlp.gate_up_proj",
            },
        ),
        "stablelm": Family(
            "stablelm",
            epsilon=_LAYER_NORM_EPS,
            keys={"use_parallel_residual": "use_parallel_residual"},
            flags={"use_qkv_bias": "attn_q.bias", "qk_layernorm": "attn_q_norm.weight"},
            parts=PARTS | {"attn_q_norm": "self_attn.q_layernorm", "attn_k_norm": "self_attn.k_layernorm"},
        ),
        "starcoder2": Family(
            "starcoder2",
            epsilon={"norm_epsilon": "attention.layer_norm_epsilon"},
            flags={"use_bias": "attn_q.bias"},
            fixed={"hidden_act": "gelu_pytorch_tanh"},
            parts=PARTS | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        ),
        "gptneox": Family(
            "gpt_neox",
            epsilon=_LAYER_NORM_EPS,
            keys={"use_parallel_residual": "use_parallel_residual"},
            flags={"attention_bias": "attn_qkv.bias"},
            fixed={"hidden_act": "gelu"},
            top={"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out"},
            layer="gpt_neox.layers.{}.",
            parts={
                "attn_norm": "input_layernorm",
                "attn_qkv": "attention.query_key_value",
                "attn_output": "attention.dense",
                "ffn_norm": "post_attention_layernorm",
                "ffn_up": "mlp.dense_h_to_4h",
                "ffn_down": "mlp.dense_4h_to_h",
            },
            split_by_head=True,
        ),
        "gpt2": Family(
            "gpt2",
            epsilon={"layer_norm_epsilon": "attention.layer_norm_epsilon"},
            keys={
                "n_embd": "embedding_length",
                "n_layer": "block_count",
                "n_head": "attention.head_count",
                "n_inner": "feed_forward_length",
                "n_positions": "context_length",
            },
            # Hugging Face's matrices lie as [inputs, outputs]; the converter turns them round.
            fixed={"activation_function": "gelu_new", "transposed_matrices": False},
            top={
                "token_embd": "transformer.wte",
                "position_embd": "transformer.wpe",
                "output_norm": "transformer.ln_f",
                "output": "lm_head",
            },
            layer="transformer.h.{}.",
            parts={
                "attn_norm": "ln_1",
                "attn_qkv": "attn.c_attn",
                "attn_output": "attn.c_proj",
                "ffn_norm": "ln_2",
                "ffn_up": "mlp.c_fc",
                "ffn_down": "mlp.c_proj",
            },
        ),
    }
)


def find(architecture: str) -> Family:
    """The entry of a file's `general.architecture`.

    Raises:
        UnsupportedError: there is none; the hint lists those that there are.
    """
    try:
        return FAMILIES[architecture]
    except KeyError:
        raise UnsupportedError(
            f"the GGUF architecture {architecture!r} is not supported",
            hint=f"Cupola reads {', '.join(sorted(FAMILIES))}; others perhaps from their Hugging Face folder.",
        ) from None
