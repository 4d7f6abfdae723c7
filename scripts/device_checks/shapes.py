"""Models by their shape alone: compiled without a checkpoint, for what weights do not matter to (kernels, their speed).

A folder of such a model has no weights; `generated_weights.py` writes some where they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cupola.compiler.compile import LIBRARY
from cupola.compiler.config import CompileConfig
from cupola.compiler.library import functions_of
from cupola.compiler.plan import plan_decoder
from cupola.compiler.target import Target
from cupola.manifest import FILE_NAME, Library, Limits, Manifest, SpecialIds, Stamp, Weight
from cupola.models import registry
from cupola.models.parameters import declare
from cupola.models.spec import DecoderSpec
from cupola.quantize.formats import Format
from cupola.quantize.layouts import words_dtype, words_shape
from cupola.quantize.parameter import Parameter, Role
from cupola.quantize.schemes import SCHEMES, choose_format
from cupola.weights.checkpoint import TensorInfo
from cupola.weights.convert import VECTOR
from cupola.weights.shards import ShardTensor, split

# config.json of the published checkpoints, and of a tiny model with the same parts.
SHAPES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "llama-3-8b": {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "tie_word_embeddings": False,
        },
        "tiny": {
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 256,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "tie_word_embeddings": False,
        },
        "qwen3-30b-a3b": {
            "model_type": "qwen3_moe",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            "tie_word_embeddings": False,
        },
        "deepseek-v2-lite": {
            "model_type": "deepseek_v2",
            "hidden_size": 2048,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
            "norm_topk_prob": False,
            "scoring_func": "softmax",
            "topk_method": "greedy",
            "n_group": 1,
            "topk_group": 1,
            "routed_scaling_factor": 1.0,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "kv_lora_rank": 512,
            "q_lora_rank": None,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "vocab_size": 102400,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
    }
)


def compile_shape(
    shape: str, config: CompileConfig, targets: Sequence[Target], folder: Path, layers: int | None = None
) -> Manifest:
    """Compiles the first layers of a shape (all: None) for some targets into a folder that has no weights.

    Raises:
        StorageError: a library could not be linked or written.
    """
    architecture, spec = registry.read(dict(SHAPES[shape]) | ({} if layers is None else {"num_hidden_layers": layers}))
    assert isinstance(spec, DecoderSpec)
    config = config.resolved("generate")
    parameters = {parameter.name: parameter for parameter in _parameters(spec, config.model.quant)}
    plans = [plan_decoder(spec, parameters, config, target) for target in targets]
    folder.mkdir(parents=True, exist_ok=True)
    libraries, order = [], ()
    for target, plan in zip(targets, plans, strict=True):
        file = LIBRARY if len(targets) == 1 else f"lib-{target.label}.so"
        built = plan.build(folder / file)
        libraries.append(Library(file=file, target=target.describe(), memory=dict(built.memory)))
        order = built.weight_names
    manifest = Manifest(
        name=shape,
        architecture=architecture.name,
        scheme=config.scheme,
        stamp=Stamp.current(),
        functions=functions_of(targets[0]),
        libraries=tuple(libraries),
        shape=plans[0].shape,
        kv_cache=plans[0].kv_cache,
        limits=Limits(max_step_tokens=config.limits.max_step_tokens, max_batch=config.limits.max_batch),
        special_ids=SpecialIds(),
        weights=_weights([parameters[name] for name in order]),
        files={},
    )
    (folder / FILE_NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _parameters(spec: DecoderSpec, quant: str) -> list[Parameter]:
    """The parameters of a checkpoint of floats."""

    def chosen(parameter: Parameter) -> Parameter:
        infos = [TensorInfo(source.name, source.one, Format.F32) for source in parameter.sources]
        return replace(parameter, format=choose_format(parameter.role, infos, SCHEMES[quant]))

    return [chosen(parameter) for parameter in declare(spec, ())]


def _weights(parameters: Sequence[Parameter]) -> tuple[Weight, ...]:
    """Where the weights would lie."""
    tensors = []
    for parameter in parameters:
        if parameter.role is Role.VECTOR:
            tensors.append(ShardTensor(parameter.name, np.dtype(np.float32), parameter.shape))
        else:
            rows, inputs = parameter.shape
            shape = words_shape(parameter.format, (rows, inputs))
            tensors.append(ShardTensor(parameter.name, words_dtype(parameter.format), shape))
    formats = {p.name: VECTOR if p.role is Role.VECTOR else p.format.value for p in parameters}
    return tuple(
        Weight(
            name=tensor.name,
            file=f"weights-{number:05d}.safetensors",
            format=formats[tensor.name],
            dtype=tensor.dtype.name,
            shape=tensor.shape,
        )
        for number, shard in enumerate(split(tensors), start=1)
        for tensor in shard
    )
