"""Hugging Face folders: numbers, text files, and every way in which a folder can be bad."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from checkpoint_files import MODEL
from safetensors.numpy import save_file

from cupola.errors import ModelError, UnsupportedError
from cupola.weights.huggingface import HuggingFaceCheckpoint

NAME = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder with one weight file and all text files."""
    path = tmp_path / "model"
    MODEL.write(path)
    (path / "tokenizer.json").write_text('{"version": "1.0"}')
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "from tokenizer_config"}))
    return path


def split_in_two(path: Path) -> None:
    """Replaces model.safetensors by two files and an index."""
    weights = MODEL.weights()
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, path / file)
        index |= dict.fromkeys(part, file)
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_are_widened_exactly(folder: Path, dtype: type) -> None:
    weights = {name: matrix.astype(dtype) for name, matrix in MODEL.weights().items()}
    save_file(weights, folder / "model.safetensors")
    checkpoint = HuggingFaceCheckpoint(folder)
    assert {name: info.shape for name, info in checkpoint.tensors.items()} == MODEL.shapes()
    for name, matrix in weights.items():
        got = checkpoint.read(name)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, matrix.astype(np.float32))
    np.testing.assert_array_equal(checkpoint.read_rows(NAME, 5, 9), weights[NAME][5:9].astype(np.float32))


def test_files_with_an_index(folder: Path) -> None:
    split_in_two(folder)
    checkpoint = HuggingFaceCheckpoint(folder)
    for name, matrix in MODEL.weights().items():
        np.testing.assert_array_equal(checkpoint.read(name), matrix)


def test_configuration_and_name(folder: Path) -> None:
    checkpoint = HuggingFaceCheckpoint(folder)
    assert checkpoint.config == MODEL.config()
    assert checkpoint.name == "model"
    assert HuggingFaceCheckpoint(folder, name="other").name == "other"


def test_text_files(folder: Path, tmp_path: Path) -> None:
    HuggingFaceCheckpoint(folder).write_text_files(tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == '{"version": "1.0"}'
    assert (tmp_path / "chat_template.jinja").read_text() == "from tokenizer_config"
    # There is no generation_config.json: config.json's ids serve.
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"bos_token_id": 1, "eos_token_id": 2}


def test_given_text_files_win(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text("a file of its own")
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 8], "temperature": 0.6}')
    HuggingFaceCheckpoint(folder).write_text_files(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == "a file of its own"
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": [7, 8], "temperature": 0.6}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], {"": "d", ".tool_use": "t"}),
        ([{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}], {"": "d"}),
        ([{"name": "tool_use", "template": "t"}], {".tool_use": "t"}),
        (None, {}),
    ],
)
def test_named_templates(folder: Path, tmp_path: Path, value: object, expected: dict[str, str]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    HuggingFaceCheckpoint(folder).write_text_files(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.glob("chat_template*")}
    assert written == {f"chat_template{name}.jinja": text for name, text in expected.items()}


def test_which_template_wins(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "of the processor"}))
    HuggingFaceCheckpoint(folder).write_text_files(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == "of the processor"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("with tools")
    (folder / "chat_template.jinja").write_text("a file of its own")
    HuggingFaceCheckpoint(folder).write_text_files(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == "a file of its own"
    assert (tmp_path / "chat_template.tool_use.jinja").read_text() == "with tools"


def test_no_tokenizer(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        HuggingFaceCheckpoint(folder).write_text_files(tmp_path)


def test_no_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        HuggingFaceCheckpoint(folder)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "holds list")])
def test_broken_configuration(folder: Path, text: str, message: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        HuggingFaceCheckpoint(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsupportedError, match=r"no \*\.safetensors file, only pytorch_model\.bin, which is a pickle"):
        HuggingFaceCheckpoint(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(folder: Path, keep: int) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(ModelError, match="truncated or damaged"):
        HuggingFaceCheckpoint(folder)


def test_a_file_of_the_index_is_missing(folder: Path) -> None:
    split_in_two(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        HuggingFaceCheckpoint(folder)


def test_a_tensor_of_the_index_is_missing(folder: Path) -> None:
    split_in_two(folder)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.extra.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"no tensor model\.extra\.weight"):
        HuggingFaceCheckpoint(folder)


def test_other_quantizations_are_refused(folder: Path) -> None:
    config = MODEL.config() | {"quantization_config": {"quant_method": "bitsandbytes"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match="bitsandbytes"):
        HuggingFaceCheckpoint(folder)


def test_tensors_of_integers_are_refused_when_they_are_read(folder: Path) -> None:
    weights = MODEL.weights() | {NAME: np.zeros((64, 64), np.int32)}
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UnsupportedError, match="I32"):
        HuggingFaceCheckpoint(folder).read(NAME)


def test_fingerprint_follows_weights_and_text(folder: Path) -> None:
    first = HuggingFaceCheckpoint(folder).fingerprint()
    assert HuggingFaceCheckpoint(folder).fingerprint() == first
    (folder / "tokenizer.json").write_text("{}")
    second = HuggingFaceCheckpoint(folder).fingerprint()
    weights = MODEL.weights()
    weights[NAME][0, 0] += 1
    save_file(weights, folder / "model.safetensors")
    assert len({first, second, HuggingFaceCheckpoint(folder).fingerprint()}) == 3
