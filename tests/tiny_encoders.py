"""Tiny random encoders, made from a seed: the same folder wherever and whenever it is made.

`scripts/goldens` runs them through transformers, `tests/numerics` through a compiled library. Each differs from its
neighbours in one thing that can go wrong. Both environments import this file: it needs no more than they share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import BertProcessing

LENGTHS = (1, 2, 7, 8, 9, 30, 61, 150)  # tokens of the texts

_CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "mpnet": "MPNet",
    "modernbert": "ModernBert",
    "nomic_bert": "NomicBert",
    "gte": "Gte",
}
# What a checkpoint's names begin with where it was saved with a head.
_PREFIXES = {
    "bert": "bert.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
    "distilbert": "distilbert.",
    "mpnet": "mpnet.",
    "modernbert": "model.",
}
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TinyEncoder:
    """The sizes of one tiny encoder; `extra` are further keys of its config.json, `labels` those of a classifier."""

    name: str
    seed: int
    pooling: str = "mean"
    model_type: str = "bert"
    hidden: int = 64
    heads: int = 4
    intermediate: int = 96
    layers: int = 2
    vocab: int = 96
    positions: int = 160
    types: int = 2
    prefix: str = ""
    norm_names: tuple[str, str] = ("weight", "bias")
    labels: int = 0
    extra: dict[str, object] = field(default_factory=dict)

    def config(self) -> dict[str, object]:
        """The contents of config.json."""
        head = "ForSequenceClassification" if self.labels else "Model"
        common: dict[str, object] = {
            "model_type": self.model_type,
            "architectures": [_CLASSES[self.model_type] + head],
            "vocab_size": self.vocab,
            "max_position_embeddings": self.positions,
            "pad_token_id": 1 if self.model_type in ("roberta", "xlm-roberta", "mpnet") else 0,
        }
        if self.labels:
            common["id2label"] = {str(i): f"label {i}" for i in range(self.labels)}
        sizes = {
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
        }
        if self.model_type == "distilbert":
            own = ("dim", "n_heads", "hidden_dim", "n_layers")
            return common | dict(zip(own, sizes.values(), strict=True)) | self.extra
        if self.model_type == "modernbert":
            return common | sizes | {"norm_eps": 1e-6} | self.extra
        act = "silu" if self.model_type == "nomic_bert" else "gelu"
        return common | sizes | {"type_vocab_size": self.types, "layer_norm_eps": 1e-6, "hidden_act": act} | self.extra

    def shapes(self) -> dict[str, Shape]:
        """Every tensor of the checkpoint, in a fixed order, under the names of today."""
        return {f"{self.prefix}{name}": shape for name, shape in _body(self)} | dict(_head(self))

    def weights(self) -> dict[str, np.ndarray]:
        """Random float32 weights, large enough that every part shows in the vectors."""
        random = np.random.default_rng(self.seed)
        weights = {}
        for name, shape in self.shapes().items():
            noise = random.standard_normal(shape, dtype=np.float32)
            if len(shape) == 1 and name.endswith("weight"):
                weights[name] = 1 + np.float32(0.2) * noise
            elif len(shape) == 1:
                weights[name] = np.float32(0.3) * noise
            else:
                weights[name] = np.float32(2 / math.sqrt(shape[1])) * noise
        return weights

    def texts(self) -> list[list[int]]:
        """Token ids of texts of LENGTHS."""
        random = np.random.default_rng(self.seed + 1)
        return [random.integers(5, self.vocab, length).tolist() for length in LENGTHS]

    def types_of(self, text: list[int]) -> list[int]:
        """The token types of a text that stands for a pair: its second half is the second text."""
        return [int(self.types > 1 and 2 * i >= len(text)) for i in range(len(text))]

    def write(self, folder: Path) -> None:
        """Writes a sentence-transformers folder; the tokenizer's words are t5, t6, ..."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "config.json", self.config())
        names = dict(zip(("weight", "bias"), self.norm_names, strict=True))
        renamed = {}
        for name, tensor in self.weights().items():
            head, _, last = name.rpartition(".")
            renamed[f"{head}.{names[last]}" if head.endswith("LayerNorm") else name] = tensor
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        specials = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
        vocabulary = specials | {f"t{i}": i for i in range(5, self.vocab)}
        tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        tokenizer.decoder = WordPieceDecoder()
        tokenizer.save(str(folder / "tokenizer.json"))
        if not self.labels:
            self._write_pooling(folder)

    def _write_pooling(self, folder: Path) -> None:
        steps = [("Transformer", ""), ("Pooling", "1_Pooling")]
        modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in steps]
        _write_json(folder / "modules.json", modules)
        (folder / "1_Pooling").mkdir(exist_ok=True)
        flags = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
        pooling = {f"pooling_mode_{flag}": how == self.pooling for how, flag in flags.items()}
        _write_json(folder / "1_Pooling" / "config.json", pooling)


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Names in a layer: linear layers with their outputs and inputs in units of h (hidden) and f, then norms."""

    layer: str
    linears: tuple[tuple[str, str, str], ...]
    norms: tuple[str, ...]
    embedding_norm: str = "embeddings.LayerNorm"
    tables: tuple[str, ...] = ("position", "token_type")
    biases: bool = True


def _squares(*names: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((name, "h", "h") for name in names)


_BERT_FFN = (("intermediate.dense", "f", "h"), ("output.dense", "h", "f"))
_BERT = _Layout(
    "encoder.layer.{}.",
    (*_squares(*(f"attention.{n}" for n in ("self.query", "self.key", "self.value", "output.dense"))), *_BERT_FFN),
    ("attention.output.LayerNorm", "output.LayerNorm"),
)
_LAYOUTS: Mapping[str, _Layout] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": _Layout(
        "transformer.layer.{}.",
        (
            *_squares(*(f"attention.{n}_lin" for n in ("q", "k", "v", "out"))),
            ("ffn.lin1", "f", "h"),
            ("ffn.lin2", "h", "f"),
        ),
        ("sa_layer_norm", "output_layer_norm"),
        tables=("position",),
    ),
    "mpnet": _Layout(
        "encoder.layer.{}.",
        (*_squares(*(f"attention.attn.{n}" for n in "qkvo")), *_BERT_FFN),
        ("attention.LayerNorm", "output.LayerNorm"),
        tables=("position",),
    ),
    "modernbert": _Layout(
        "layers.{}.",
        (("attn.Wqkv", "3h", "h"), ("attn.Wo", "h", "h"), ("mlp.Wi", "2f", "h"), ("mlp.Wo", "h", "f")),
        ("attn_norm", "mlp_norm"),
        embedding_norm="embeddings.norm",
        tables=(),
        biases=False,
    ),
    "nomic_bert": _Layout(
        "encoder.layers.{}.",
        (
            ("attn.Wqkv", "3h", "h"),
            ("attn.out_proj", "h", "h"),
            ("mlp.fc11", "f", "h"),
            ("mlp.fc12", "f", "h"),
            ("mlp.fc2", "h", "f"),
        ),
        ("norm1", "norm2"),
        embedding_norm="emb_ln",
        tables=("token_type",),
        biases=False,
    ),
    "gte": _Layout(
        "encoder.layer.{}.",
        (
            ("attention.qkv_proj", "3h", "h"),
            ("attention.o_proj", "h", "h"),
            ("mlp.up_gate_proj", "2f", "h"),
            ("mlp.down_proj", "h", "f"),
        ),
        ("attn_ln", "mlp_ln"),
        tables=("token_type",),
    ),
}


def _body(tiny: TinyEncoder) -> Iterator[tuple[str, Shape]]:
    """The encoder's own tensors without their prefix."""
    layout, modern = _LAYOUTS[tiny.model_type], tiny.model_type == "modernbert"
    sizes = {"h": tiny.hidden, "3h": 3 * tiny.hidden, "f": tiny.intermediate, "2f": 2 * tiny.intermediate}
    words = "tok_embeddings" if modern else "word_embeddings"
    norm_bias = not modern or bool(tiny.extra.get("norm_bias"))
    yield f"embeddings.{words}.weight", (tiny.vocab, tiny.hidden)
    rows = {"position": tiny.positions, "token_type": tiny.types}
    for table in layout.tables:
        yield f"embeddings.{table}_embeddings.weight", (rows[table], tiny.hidden)
    if tiny.model_type == "mpnet":
        yield "encoder.relative_attention_bias.weight", (32, tiny.heads)
    for i in range(tiny.layers):
        for name, outputs, inputs in layout.linears:
            biased = layout.biases and not name.endswith("up_gate_proj")
            biased = biased or bool(tiny.extra.get(_BIAS_KEYS.get(name, "")))
            yield from _linear(layout.layer.format(i) + name, sizes[outputs], sizes[inputs], biased)
    yield from _norm(layout.embedding_norm, tiny.hidden, norm_bias)
    for i in range(tiny.layers):
        for name in layout.norms:
            if not (modern and i == 0 and name == "attn_norm"):
                yield from _norm(layout.layer.format(i) + name, tiny.hidden, norm_bias)
    if modern:
        yield from _norm("final_norm", tiny.hidden, norm_bias)


_BIAS_KEYS = {"attn.Wqkv": "attention_bias", "attn.Wo": "attention_bias", "mlp.Wi": "mlp_bias", "mlp.Wo": "mlp_bias"}


def _head(tiny: TinyEncoder) -> Iterator[tuple[str, Shape]]:
    """A classifier's tensors."""
    if not tiny.labels:
        return
    hidden, projection = tiny.hidden, "classifier"
    if tiny.model_type in ("bert", "gte"):
        yield from _linear(f"{tiny.prefix}pooler.dense", hidden, hidden)
    elif tiny.model_type == "distilbert":
        yield from _linear("pre_classifier", hidden, hidden)
    elif tiny.model_type == "modernbert":
        yield from _linear("head.dense", hidden, hidden, bool(tiny.extra.get("classifier_bias")))
        yield from _norm("head.norm", hidden, bool(tiny.extra.get("norm_bias")))
    else:
        yield from _linear("classifier.dense", hidden, hidden)
        projection = "classifier.out_proj"
    yield from _linear(projection, tiny.labels, hidden)


def _classifier(name: str, seed: int, model_type: str, labels: int = 1, **more: object) -> TinyEncoder:
    """A reranker, or with several labels a classifier, of some family."""
    sizes = {"prefix": _PREFIXES[model_type], "types": 2 if model_type == "bert" else 1, "positions": 162}
    return TinyEncoder(name, seed, model_type=model_type, labels=labels, **(sizes | more))  # type: ignore[arg-type]


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1))


_MODERN_BIASES: dict[str, object] = {
    "attention_bias": True,
    "mlp_bias": True,
    "norm_bias": True,
    "classifier_bias": True,
}
_MODERN_MEAN: dict[str, object] = {"local_attention": 32, "classifier_pooling": "mean"}

TINY_ENCODERS = (
    TinyEncoder("mean", seed=10),
    TinyEncoder("cls", seed=20, pooling="cls", layers=3),
    TinyEncoder("last", seed=30, pooling="last", heads=2),
    TinyEncoder("tanh", seed=40, extra={"hidden_act": "gelu_new"}),
    TinyEncoder("odd-sizes", seed=50, hidden=48, heads=6, intermediate=80, vocab=101, extra={"hidden_act": "relu"}),
    TinyEncoder("old-names", seed=60, prefix="bert.", norm_names=("gamma", "beta"), pooling="cls"),
    TinyEncoder("roberta", seed=70, model_type="roberta", types=1, positions=162, prefix="roberta."),
    TinyEncoder("xlm-roberta", seed=80, model_type="xlm-roberta", types=1, positions=162, pooling="cls"),
    TinyEncoder("distilbert", seed=90, model_type="distilbert", types=1),
    TinyEncoder("mpnet", seed=100, model_type="mpnet", types=1, positions=162),
    TinyEncoder("modernbert", seed=110, model_type="modernbert", types=1, layers=4, extra={"local_attention": 32}),
    TinyEncoder("nomic_bert", seed=120, model_type="nomic_bert"),
    TinyEncoder("gte", seed=130, model_type="gte", types=1, prefix="new.", pooling="cls"),
)
TINY_CLASSIFIERS = (
    _classifier("bert-reranker", 210, "bert"),
    _classifier("bert-labels", 220, "bert", labels=3),
    _classifier("roberta-reranker", 230, "roberta"),
    _classifier("xlm-roberta-reranker", 240, "xlm-roberta"),
    _classifier("distilbert-reranker", 250, "distilbert"),
    _classifier("mpnet-reranker", 260, "mpnet"),
    _classifier("modernbert-reranker", 270, "modernbert", layers=3, extra=_MODERN_MEAN),
    _classifier("modernbert-biases", 280, "modernbert", labels=2, extra=_MODERN_BIASES),
)
