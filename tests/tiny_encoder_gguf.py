"""The encoders of `tiny_encoders` as GGUF files, written as llama.cpp's converter writes them.

Names of tensors come from the `gguf` library's own table, which the converter uses too; the rest is restated here from
the converter's rules. `scripts/goldens` has llama.cpp read these files, so that this knows nothing of Cupola.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    PoolingType,
    TokenType,
    get_tensor_name_map,
)

from tiny_encoders import TINY_CLASSIFIERS, TINY_ENCODERS, TinyEncoder

ARCHITECTURES: Mapping[str, MODEL_ARCH] = {
    "bert": MODEL_ARCH.BERT,
    "xlm-roberta": MODEL_ARCH.BERT,
    "nomic_bert": MODEL_ARCH.NOMIC_BERT,
    "modernbert": MODEL_ARCH.MODERN_BERT,
}
_POOLINGS = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "last": PoolingType.LAST}
_FIRST_POSITION = 2  # of XLM-RoBERTa
_NAMES = ("mean", "cls", "xlm-roberta", "nomic_bert", "modernbert", "xlm-roberta-reranker", "modernbert-reranker")
GGUF_ENCODERS = tuple(tiny for tiny in (*TINY_ENCODERS, *TINY_CLASSIFIERS) if tiny.name in _NAMES)


def write_encoder_gguf(path: Path, tiny: TinyEncoder) -> None:
    """Writes a tiny encoder with its matrices in float32, as many tokens as it has, and its words."""
    arch = ARCHITECTURES[tiny.model_type]
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[arch])
    offset = _FIRST_POSITION if tiny.model_type == "xlm-roberta" else 0
    writer.add_context_length(tiny.positions - offset)
    writer.add_embedding_length(tiny.hidden)
    writer.add_feed_forward_length(tiny.intermediate)
    writer.add_block_count(tiny.layers)
    writer.add_head_count(tiny.heads)
    writer.add_layer_norm_eps(1e-6)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.RANK if tiny.labels else _POOLINGS[tiny.pooling])
    if tiny.model_type == "nomic_bert":
        writer.add_rope_freq_base(1000.0)
    if tiny.model_type == "modernbert":
        writer.add_sliding_window(int(str(tiny.extra["local_attention"])))
        writer.add_sliding_window_pattern(3)
        writer.add_rope_freq_base(160000.0)
        writer.add_rope_freq_base_swa(10000.0)
        writer.add_vocab_size(tiny.vocab)
    if tiny.labels:
        labels = [f"label {i}" for i in range(tiny.labels)]
        writer.add_array(f"{MODEL_ARCH_NAMES[arch]}.classifier.output_labels", labels)
    names = get_tensor_name_map(arch, tiny.layers)
    for name, tensor in tiny.weights().items():
        bare = name.removeprefix(tiny.prefix)
        if tiny.model_type == "modernbert" and bare.startswith("classifier."):
            bare = bare.replace("classifier.", "classifier.out_proj.")  # so does the converter
        mapped = names.get_name(bare, try_suffixes=(".weight", ".bias"))
        assert mapped is not None, name
        rows = tensor[offset:] if mapped.startswith("position_embd") else tensor
        writer.add_tensor(mapped, np.ascontiguousarray(rows), raw_dtype=GGMLQuantizationType.F32)
    _add_words(writer, tiny)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_words(writer: GGUFWriter, tiny: TinyEncoder) -> None:
    """WordPiece as llama.cpp has it: words begin with a mark, where Hugging Face marks what continues one."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list([*special, *(f"\u2581t{i}" for i in range(len(special), tiny.vocab))])
    normal = [TokenType.NORMAL] * (tiny.vocab - len(special))
    writer.add_token_types([TokenType.CONTROL, TokenType.UNKNOWN, *[TokenType.CONTROL] * 3, *normal])
    writer.add_token_type_count(tiny.types)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)


def llama_cpp_texts(tiny: TinyEncoder) -> list[list[int]]:
    """The words, as token ids, of the texts that llama.cpp was asked of; of a reranker a query and documents."""
    random = np.random.default_rng(tiny.seed + 2)
    return [random.integers(5, tiny.vocab, length).tolist() for length in (3, 1, 9, 40, 100)]


def spelled(ids: list[int]) -> str:
    """A text of these words."""
    return " ".join(f"t{i}" for i in ids)
