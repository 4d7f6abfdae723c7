"""Encoders in GGUF files: llama.cpp's architectures, and what is said of pooling and of a reranker's head.

A table of `gguf_families`, and what follows from a file's tensors for its config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cupola.errors import UnsupportedError
from cupola.weights.gguf_family import Family, Values
from cupola.weights.gguf_file import GgufFile

_EPSILON = {"layer_norm_eps": "attention.layer_norm_epsilon"}
_POOLING = "pooling_type"
# llama.cpp's numbers: none, mean, cls, last, rank. A file that says nothing is taken as sentence-transformers takes it.
_POOLINGS = {0: "mean", 1: "mean", 2: "cls", 3: "last", 4: "cls"}


def _modern(config: Values) -> Values:
    """The first of so many layers sees everything, where decoders have the last."""
    return {
        "layer_types": None,
        "rope_parameters": {
            "full_attention": {"rope_theta": config["rope_theta"]},
            "sliding_attention": {"rope_theta": config.get("local_rope_theta", 10000.0)},
        },
    }


ENCODERS: Mapping[str, Family] = MappingProxyType(
    {
        # RoBERTa's too: the converter leaves out the rows of positions that padding has.
        "bert": Family(
            "bert",
            epsilon=_EPSILON,
            fixed={"hidden_act": "gelu"},
            top={
                "token_embd": "embeddings.word_embeddings",
                "token_embd_norm": "embeddings.LayerNorm",
                "token_types": "embeddings.token_type_embeddings",
                "position_embd": "embeddings.position_embeddings",
                "cls": "classifier.dense",
                "cls.output": "classifier.out_proj",
            },
            layer="encoder.layer.{}.",
            parts={
                "attn_q": "attention.self.query",
                "attn_k": "attention.self.key",
                "attn_v": "attention.self.value",
                "attn_output": "attention.output.dense",
                "attn_output_norm": "attention.output.LayerNorm",
                "ffn_up": "intermediate.dense",
                "ffn_down": "output.dense",
                "layer_output_norm": "output.LayerNorm",
            },
        ),
        "nomic-bert": Family(
            "nomic_bert",
            epsilon=_EPSILON,
            top={
                "token_embd": "embeddings.word_embeddings",
                "token_embd_norm": "emb_ln",
                "token_types": "embeddings.token_type_embeddings",
            },
            layer="encoder.layers.{}.",
            parts={
                "attn_qkv": "attn.Wqkv",
                "attn_output": "attn.out_proj",
                "attn_output_norm": "norm1",
                "ffn_up": "mlp.fc11",
                "ffn_gate": "mlp.fc12",
                "ffn_down": "mlp.fc2",
                "layer_output_norm": "norm2",
            },
        ),
        "modern-bert": Family(
            "modernbert",
            epsilon={"norm_eps": "attention.layer_norm_epsilon"},
            keys={
                "local_attention": "attention.sliding_window",
                "local_rope_theta": "rope.freq_base_swa",
                "global_attn_every_n_layers": "attention.sliding_window_pattern",
            },
            fixed={"classifier_pooling": "mean"},  # as llama.cpp has it for all of them
            flags={"attention_bias": "attn_qkv.bias", "mlp_bias": "ffn_up.bias", "norm_bias": "ffn_norm.bias"},
            derived=_modern,
            top={
                "token_embd": "embeddings.tok_embeddings",
                "token_embd_norm": "embeddings.norm",
                "output_norm": "final_norm",
                "cls": "head.dense",
                "cls.norm": "head.norm",
                "cls.output": "classifier",
            },
            layer="layers.{}.",
            parts={
                "attn_norm": "attn_norm",
                "attn_qkv": "attn.Wqkv",
                "attn_output": "attn.Wo",
                "ffn_norm": "mlp_norm",
                "ffn_up": "mlp.Wi",
                "ffn_down": "mlp.Wo",
            },
        ),
    }
)


def encoder_config(file: GgufFile, architecture: str) -> dict[str, object]:
    """What the tensors and the metadata of an encoder's file say beyond sizes; nothing of another model's.

    Raises:
        UnsupportedError: a way of pooling that Cupola does not know, or a head without its first matrix.
    """
    if architecture not in ENCODERS:
        return {}
    number = file.metadata.get(f"{architecture}.{_POOLING}")
    if number is not None and number not in _POOLINGS:
        raise UnsupportedError(f"{file.path} has {architecture}.{_POOLING} {number!r}", hint="Cupola knows 0 to 4.")
    types = file.tensors.get("token_types.weight")
    config: dict[str, object] = {
        "pooling": "mean" if number is None else _POOLINGS[int(str(number))],
        "type_vocab_size": 0 if types is None else types.shape[0],
    }
    projection = file.tensors.get("cls.output.weight")
    if projection is None:
        return config
    if "cls.weight" not in file.tensors:
        raise UnsupportedError(
            f"{file.path} has a classifier without the matrix before it, which converters of BERT leave out",
            hint="Use the Hugging Face folder.",
        )
    named = file.metadata.get(f"{architecture}.classifier.output_labels")
    labels = named if isinstance(named, list) else [f"LABEL_{i}" for i in range(projection.shape[0])]
    # The head of two matrices, which such a file has, is RoBERTa's.
    roberta = {"model_type": "roberta", "first_position": 0} if architecture == "bert" else {}
    return (
        config
        | roberta
        | {
            "architectures": ["ForSequenceClassification"],
            "id2label": {str(i): str(label) for i, label in enumerate(labels)},
            "classifier_bias": "cls.bias" in file.tensors,
        }
    )
