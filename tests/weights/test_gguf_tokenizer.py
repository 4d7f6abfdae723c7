"""The tokenizer inside a GGUF file gives the ids that llama.cpp gives; what it cannot do, it says."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from checkpoint_files import write_gguf
from gguf import GGUFWriter
from tokenizers import Tokenizer

from cupola.errors import ModelError, StorageError, UnsupportedError
from cupola.weights.gguf_file import GgufFile
from cupola.weights.gguf_pretokenizers import PRE_TOKENIZERS
from cupola.weights.gguf_tokenizer import write_text_files

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "goldens" / "tokenizer-smollm2.json").read_text(encoding="utf-8"))
TEXTS = [case["text"] for case in GOLDEN["cases"]]
# llama.cpp writes these rules without \p{Lu} and \p{M}, so that it cuts combining marks off where the models do not;
# some even without looking at cases.
APPROXIMATED = {"tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "granite-embed-multi-97m"}
WITHOUT_CASES = {"kimi-k2", "youtu", "tiny_aya", "cohere2moe"}


def golden_script() -> ModuleType:
    """scripts/goldens/tokenizer.py, which made the vocabularies of the golden."""
    spec = importlib.util.spec_from_file_location("golden_tokenizer", ROOT / "scripts" / "goldens" / "tokenizer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tokenizer_of(file: GgufFile, folder: Path) -> Tokenizer:
    write_text_files(file, folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def changed(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> GgufFile:
    """The file with other metadata, as if it had been written so."""
    file = copy.copy(GgufFile(path))
    arrays = {key: np.asarray(v) for key, v in change(dict(file.metadata)).items() if is_numbers(v)}
    file.metadata = change(dict(file.metadata)) | arrays
    return file


def is_numbers(value: object) -> bool:
    return isinstance(value, list) and bool(value) and not isinstance(value[0], str)


@pytest.mark.model
def test_ids_equal_llama_cpp(smollm2_gguf: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(GgufFile(smollm2_gguf), tmp_path)
    for case in GOLDEN["cases"]:
        ids = tokenizer.encode(case["text"]).ids
        assert ids == case["ids"], case["text"]
        assert tokenizer.decode(ids, skip_special_tokens=False) == case["text"]


@pytest.mark.model
@pytest.mark.parametrize("entry", GOLDEN["rules"], ids=lambda entry: str(entry["names"][0]))
def test_every_named_rule_equals_llama_cpp(smollm2_gguf: Path, tmp_path: Path, entry: dict[str, Any]) -> None:
    script = golden_script()
    done = []
    for name in entry["names"]:
        rule = PRE_TOKENIZERS[name]
        if rule in done:
            continue
        done.append(rule)
        file = changed(smollm2_gguf, lambda metadata, name=name: script.renamed(metadata, name))
        tokenizer = tokenizer_of(file, tmp_path)
        for text, ids in zip(TEXTS, entry["ids"], strict=True):
            if name in APPROXIMATED | WITHOUT_CASES and any(unicodedata.category(c).startswith("M") for c in text):
                continue
            if name in WITHOUT_CASES and re.search("[a-z][A-Z]", text):
                continue
            assert tokenizer.encode(text).ids == ids, (name, text)


def test_the_golden_covers_every_rule() -> None:
    assert sorted(name for entry in GOLDEN["rules"] for name in entry["names"]) == sorted(PRE_TOKENIZERS)


@pytest.mark.model
def test_sentence_pieces_equal_llama_cpp(smollm2_gguf: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(changed(smollm2_gguf, golden_script().pieces), tmp_path)
    for text, ids in zip(TEXTS, GOLDEN["pieces"], strict=True):
        assert tokenizer.encode(text).ids == ids, text
        if "<|" not in text:  # special tokens are left out
            assert tokenizer.decode(ids) == text


@pytest.mark.model
def test_word_pieces_equal_llama_cpp(smollm2_gguf: Path, tmp_path: Path) -> None:
    file = changed(smollm2_gguf, golden_script().words)
    tokenizer = tokenizer_of(file, tmp_path)
    for text, ids in zip(TEXTS, GOLDEN["words"], strict=True):
        # BERT drops marks and characters of format and takes Korean syllables apart; llama.cpp has them as letters.
        if any(unicodedata.category(c) in ("Mn", "Cf") or "\uac00" <= c <= "\ud7a3" for c in text):
            continue
        assert tokenizer.encode(text).ids == ids, text
    assert tokenizer.encode("a", "b").ids[:1] == [2]
    assert tokenizer.encode("a", "b").ids.count(3) == 2


@pytest.mark.model
def test_text_files_of_the_default_model(smollm2_gguf: Path, tmp_path: Path) -> None:
    write_text_files(GgufFile(smollm2_gguf), tmp_path)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2}
    assert "<|im_start|>assistant" in (tmp_path / "chat_template.jinja").read_text()


def test_special_tokens_and_what_is_put_around_a_prompt(tmp_path: Path) -> None:
    def add(writer: GGUFWriter) -> None:
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)

    write_gguf(tmp_path / "m.gguf", metadata=add)
    tokenizer = tokenizer_of(GgufFile(tmp_path / "m.gguf"), tmp_path)
    assert tokenizer.encode("he<|im_end|>h").ids == [257, 256, 258, ord("h"), 258]
    assert tokenizer.encode("he", add_special_tokens=False).ids == [256]
    assert tokenizer.decode([257, 256, 258]) == "he"
    assert tokenizer.token_to_id("<|im_end|>") == 258
    assert tokenizer.get_vocab_size() == 300
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ messages[0].content }}"


def test_a_template_for_tools(tmp_path: Path) -> None:
    templates = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    write_gguf(tmp_path / "m.gguf", tokenizer=False, metadata=lambda writer: with_templates(writer, templates))
    write_text_files(GgufFile(tmp_path / "m.gguf"), tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == "d"
    assert (tmp_path / "chat_template.tool_use.jinja").read_text() == "t"


def with_templates(writer: GGUFWriter, templates: list[dict[str, str]]) -> None:
    writer.add_chat_template(templates)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_merges(["a b"])


def test_recommended_sampling(tmp_path: Path) -> None:
    def add(writer: GGUFWriter) -> None:
        writer.add_float32("general.sampling.temp", 0.2)
        writer.add_uint32("general.sampling.top_k", 40)

    write_gguf(tmp_path / "m.gguf", metadata=add)
    write_text_files(GgufFile(tmp_path / "m.gguf"), tmp_path)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 257, "eos_token_id": [258], "temperature": 0.2, "top_k": 40}


def test_user_defined_tokens_are_found_before_anything_else(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")

    def define(metadata: dict[str, Any]) -> dict[str, Any]:
        tokens, types = list(metadata["tokenizer.ggml.tokens"]), metadata["tokenizer.ggml.token_type"].copy()
        tokens[280], types[280] = "  two words ", 4
        return metadata | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}

    tokenizer = tokenizer_of(changed(tmp_path / "m.gguf", define), tmp_path)
    assert tokenizer.encode("x  two words y").ids == [ord("x"), 280, ord("y")]
    assert tokenizer.decode([280]) == "  two words "


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("tokenizer.ggml.pre", "no-such-rule", UnsupportedError, "'no-such-rule'"),
        ("tokenizer.ggml.model", "rwkv", UnsupportedError, "'rwkv'"),
        ("tokenizer.ggml.model", None, UnsupportedError, "None"),
        ("tokenizer.ggml.tokens", None, ModelError, "tokenizer.ggml.tokens"),
        ("tokenizer.ggml.merges", None, ModelError, "tokenizer.ggml.merges"),
        ("tokenizer.ggml.merges", ["no way"], ModelError, "inconsistent tokenizer"),
        ("tokenizer.ggml.token_type", [1, 1], ModelError, "token_type for fewer"),
        ("tokenizer.ggml.tokens", ["a", "a"], ModelError, "twice"),
    ],
)
def test_bad_tokenizers(tmp_path: Path, key: str, value: object, error: type[ModelError], message: str) -> None:
    write_gguf(tmp_path / "m.gguf")

    def change(metadata: dict[str, Any]) -> dict[str, Any]:
        rest = {k: v for k, v in metadata.items() if k != key}
        return rest if value is None else rest | {key: value}

    with pytest.raises(error, match=message):
        write_text_files(changed(tmp_path / "m.gguf", change), tmp_path)


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", tokenizer=False)
    with pytest.raises(ModelError, match=r"lacks the metadata tokenizer\.ggml\.tokens"):
        write_text_files(GgufFile(tmp_path / "m.gguf"), tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    with pytest.raises(StorageError, match=r"tokenizer\.json cannot be written"):
        write_text_files(GgufFile(tmp_path / "m.gguf"), tmp_path / "no")
