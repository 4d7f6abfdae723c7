"""A GGUF file of an encoder is the model of the Hugging Face folder: the same shape and the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import MODEL_ARCH_NAMES, GGUFWriter
from safetensors.numpy import load_file

from cupola.errors import UnsupportedError
from cupola.models import registry
from cupola.models.encoder_parameters import declare
from cupola.models.encoder_spec import EncoderSpec
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.convert import convert
from cupola.weights.gguf import GgufCheckpoint
from cupola.weights.gguf_encoders import ENCODERS
from cupola.weights.huggingface import HuggingFaceCheckpoint
from cupola.weights.sentence_transformers import SentenceSettings, settings_of
from tiny_encoder_gguf import ARCHITECTURES, GGUF_ENCODERS, write_encoder_gguf
from tiny_encoders import TinyEncoder


def read(checkpoint: Checkpoint, folder: Path) -> tuple[EncoderSpec, dict[str, np.ndarray]]:
    spec = registry.read(checkpoint.config)[1]
    assert isinstance(spec, EncoderSpec)
    folder.mkdir()
    convert(checkpoint, list(declare(spec, checkpoint.tensors)), folder, lambda _done, _total: None)
    return spec, {name: value for path in sorted(folder.iterdir()) for name, value in load_file(path).items()}


@pytest.mark.parametrize("tiny", GGUF_ENCODERS, ids=lambda tiny: tiny.name)
def test_a_file_is_the_model_of_the_folder(tmp_path: Path, tiny: TinyEncoder) -> None:
    tiny.write(tmp_path / "folder")
    write_encoder_gguf(tmp_path / "m.gguf", tiny)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    spec, expected = read(HuggingFaceCheckpoint(tmp_path / "folder"), tmp_path / "expected")
    found, actual = read(checkpoint, tmp_path / "actual")
    first = spec.first_position  # the file has no rows before it
    assert found.names == replace(spec.names, prefixes=found.names.prefixes)
    assert replace(found, names=spec.names, head=None) == replace(
        spec, positions=max(spec.positions - first, 0), first_position=0, head=None
    )
    assert found.head == spec.head
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value[first:] if name == "positions" else value, err_msg=name)
    pooling = "cls" if tiny.labels else tiny.pooling
    assert settings_of(checkpoint) == SentenceSettings(pooling, normalized=True)
    checkpoint.write_text_files(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()


def test_every_architecture_has_a_case() -> None:
    assert {MODEL_ARCH_NAMES[ARCHITECTURES[tiny.model_type]] for tiny in GGUF_ENCODERS} == set(ENCODERS)


def test_what_a_file_cannot_say_is_refused(tmp_path: Path) -> None:
    for pooling, extra, words in (
        (7, {}, "pooling_type 7"),
        (4, {"cls.output.weight": 1}, "without the matrix before"),
    ):
        writer = GGUFWriter(tmp_path / "m.gguf", "bert")
        for add, value in (
            (writer.add_context_length, 8),
            (writer.add_embedding_length, 16),
            (writer.add_feed_forward_length, 16),
            (writer.add_block_count, 1),
            (writer.add_head_count, 1),
        ):
            add(value)
        writer.add_layer_norm_eps(1e-6)
        writer.add_uint32("bert.pooling_type", pooling)
        for name, rows in {"token_embd.weight": 4, **extra}.items():
            writer.add_tensor(name, np.zeros((rows, 16), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(UnsupportedError, match=words):
            GgufCheckpoint(tmp_path / "m.gguf")
