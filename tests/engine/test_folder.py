"""What is checked when a compiled folder is opened."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cupola.engine.backends.scripted import CHAT_TEMPLATE, byte_tokenizer, scripted_manifest
from cupola.engine.folder import (
    is_compiled_folder,
    read_chat_template,
    read_default_params,
    read_manifest,
    special_token_names,
    verify_files,
)
from cupola.engine.request import SamplingParams
from cupola.errors import IncompatibleError, ModelError
from cupola.manifest import SpecialIds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lib.so").write_bytes(b"library")
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    files = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("lib.so", "tokenizer.json")}
    manifest = scripted_manifest().model_copy(update={"files": files})
    (tmp_path / "model.json").write_text(manifest.model_dump_json())
    return tmp_path


def test_a_sound_folder(folder: Path) -> None:
    assert is_compiled_folder(folder)
    verify_files(folder, read_manifest(folder))


def test_a_changed_file_is_found(folder: Path) -> None:
    (folder / "lib.so").write_bytes(b"librarz")
    with pytest.raises(ModelError, match=r"lib\.so.* was changed") as caught:
        verify_files(folder, read_manifest(folder))
    assert caught.value.hint is not None


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"lacks its file `tokenizer\.json`"):
        verify_files(folder, read_manifest(folder))


@pytest.mark.parametrize("version", [1, 2, 99])
def test_another_format_version_is_incompatible(folder: Path, version: int) -> None:
    """Version 1: libraries that run on one thread only, because the engine's threads were called otherwise.
    Version 2: one library, named at the top.
    """
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**content, "format_version": version, "novel": True}))
    with pytest.raises(IncompatibleError, match=f"format version {version}"):
        read_manifest(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format_version": 1}', "\xff"])
def test_a_broken_manifest_is_a_model_error(folder: Path, text: str) -> None:
    (folder / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"model\.json"):
        read_manifest(folder)


def test_a_wrong_field_is_named(folder: Path) -> None:
    content = json.loads((folder / "model.json").read_text())
    content["shape"]["vocab_size"] = "many"
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"`shape\.vocab_size`"):
        read_manifest(folder)


def test_an_ordinary_folder_is_not_compiled(tmp_path: Path) -> None:
    assert not is_compiled_folder(tmp_path)
    assert not is_compiled_folder(tmp_path / "nothing")


def test_defaults_come_from_the_generation_config(tmp_path: Path) -> None:
    assert read_default_params(tmp_path) == SamplingParams()
    path = tmp_path / "generation_config.json"
    path.write_text('{"temperature": 0.6, "top_p": 0.9, "top_k": 50, "eos_token_id": [1, 2], "min_p": null}')
    assert read_default_params(tmp_path) == SamplingParams(temperature=0.6, top_p=0.9, top_k=50)


@pytest.mark.parametrize("text", ["[]", "{", "nonsense"])
def test_a_broken_generation_config_is_a_model_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        read_default_params(tmp_path)


def test_the_chat_template_knows_the_special_tokens(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    assert read_chat_template(tmp_path, tokenizer, SpecialIds()) is None
    ids = SpecialIds(bos=257, eos=(258, 256), pad=256)
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    assert special_token_names(tokenizer, ids) == names
    assert special_token_names(tokenizer, SpecialIds(bos=9999)) == {}
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}" + CHAT_TEMPLATE)
    template = read_chat_template(tmp_path, tokenizer, ids)
    assert template is not None
    assert template.render([{"role": "user", "content": "x"}]).startswith("<|im_start|><|im_start|>user")
