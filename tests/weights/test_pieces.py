"""SentencePiece's models give SentencePiece's own ids, from their own files and from GGUF; the texts come back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import finish
from gguf import GGUFWriter
from tokenizers import Tokenizer

from cupola.errors import ModelError, UnsupportedError
from cupola.text.tokenizer import Tokenizer as TextTokenizer
from cupola.weights.gguf_file import GgufFile
from cupola.weights.gguf_tokenizer import write_text_files
from cupola.weights.huggingface import HuggingFaceCheckpoint
from cupola.weights.pieces import build
from cupola.weights.sentencepiece_model import SentencePieceModel, read_model
from tiny_models import TinyModel

GOLDENS = Path(__file__).parents[1] / "goldens" / "pieces"
GOLDEN = json.loads((GOLDENS / "ids.json").read_text(encoding="utf-8"))
NAMES = sorted(GOLDEN["models"])


def check(tokenizer: Tokenizer, name: str) -> None:
    expected = GOLDEN["models"][name]
    for text, ids, back in zip(GOLDEN["texts"], expected["ids"], expected["texts"], strict=True):
        got = tokenizer.encode(text, add_special_tokens=False).ids
        assert got == ids, (name, text)
        assert "\u2047" in back or tokenizer.decode(got) == back, (
            name,
            text,
        )  # SentencePiece shows what it cannot write


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_sentencepiece(name: str) -> None:
    check(build(read_model(GOLDENS / f"{name}.model").pieces), name)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_in_a_gguf_file(tmp_path: Path, name: str) -> None:
    model = read_model(GOLDENS / f"{name}.model")
    write_text_files(gguf_file(tmp_path / "m.gguf", model), tmp_path)
    check(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), name)


def gguf_file(path: Path, model: SentencePieceModel) -> GgufFile:
    """The vocabulary as llama.cpp's converter writes it."""
    writer, pieces = GGUFWriter(path, "llama"), model.pieces
    writer.add_tokenizer_model("t5" if pieces.unigram else "llama")
    writer.add_token_list(list(pieces.texts))
    writer.add_token_scores([float(score) for score in pieces.scores])
    writer.add_token_types([int(kind) for kind in pieces.types])
    writer.add_add_space_prefix(pieces.prefix == "each")
    if pieces.unigram:
        writer.add_remove_extra_whitespaces(pieces.merge_spaces)
        if pieces.characters:
            writer.add_precompiled_charsmap(pieces.characters)
    for key, add in {
        "unk": writer.add_unk_token_id,
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
    }.items():
        if key in model.ids:
            add(model.ids[key])
    finish(writer)
    return GgufFile(path)


def folder_with(path: Path, name: str, settings: Mapping[str, object], **files: object) -> TextTokenizer:
    """The tokenizer that a folder with this SentencePiece model, and without tokenizer.json, gets."""
    TinyModel("tiny", seed=5).write(path)
    (path / "tokenizer.json").unlink()
    shutil.copy(GOLDENS / f"{name}.model", path / "tokenizer.model")
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    for file, content in files.items():
        (path / f"{file}.json").write_text(json.dumps(content))
    out = path / "out"
    out.mkdir()
    HuggingFaceCheckpoint(path).write_text_files(out)
    return TextTokenizer.from_file(out / "tokenizer.json")


def test_what_stands_around_a_text(tmp_path: Path) -> None:
    inner = GOLDEN["models"]["bpe-llama"]["ids"][0]
    text = GOLDEN["texts"][0]
    assert folder_with(tmp_path / "a", "bpe-llama", {}).encode(text) == [1, *inner]
    settings = {"add_bos_token": False, "add_eos_token": True, "eos_token": {"content": "</s>"}}
    assert folder_with(tmp_path / "b", "bpe-llama", settings).encode(text) == [*inner, 2]
    t5 = folder_with(tmp_path / "c", "unigram-t5", {"tokenizer_class": "T5Tokenizer"})
    assert t5.encode(text) == [*GOLDEN["models"]["unigram-t5"]["ids"][0], 1]


def test_a_pair_for_a_reranker_of_xlm_r(tmp_path: Path) -> None:
    """`<s> a </s></s> b </s>`, as its own tokenizer.json has it."""
    model = read_model(GOLDENS / "unigram-bytes.model")
    file = gguf_file(tmp_path / "m.gguf", model)
    file.metadata["tokenizer.ggml.add_bos_token"] = file.metadata["tokenizer.ggml.add_eos_token"] = True
    write_text_files(file, tmp_path)
    tokenizer = TextTokenizer.from_file(tmp_path / "tokenizer.json")
    bos, eos = model.ids["bos"], model.ids["eos"]
    first, second = (tokenizer.encode(text, add_special_tokens=False) for text in GOLDEN["texts"][:2])
    ((ids, _),) = tokenizer.encode_pairs([(GOLDEN["texts"][0], GOLDEN["texts"][1])])
    assert ids == [bos, *first, eos, eos, *second, eos]


def test_tokens_that_a_folder_adds_and_renames(tmp_path: Path) -> None:
    model = read_model(GOLDENS / "bpe-llama.model")
    size, last = len(model.pieces.texts), model.pieces.texts[-1]
    added = {
        str(size - 1): {"content": "<|im_end|>", "special": True},
        str(size): {"content": "<tool>", "special": False, "normalized": False},
    }
    tokenizer = folder_with(
        tmp_path, "bpe-llama", {"added_tokens_decoder": added}, added_tokens={"<tool>": size, "<plain>": size + 1}
    )
    assert tokenizer.encode("<|im_end|><tool><plain>", add_special_tokens=False) == [size - 1, size, size + 1]
    assert tokenizer.special_ids >= {0, 1, 2, size - 1}
    assert size not in tokenizer.special_ids
    assert tokenizer.token_bytes(size) == b"<tool>"
    assert size - 1 not in tokenizer.encode(last, add_special_tokens=False)


def test_ids_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'<far>' the id 9999"):
        folder_with(tmp_path, "bpe-llama", {}, added_tokens={"<far>": 9999})


def test_a_space_at_the_start_alone(tmp_path: Path) -> None:
    """`legacy: false` of transformers: behind a special token there is none."""
    usual = folder_with(tmp_path / "a", "bpe-llama", {})
    first = folder_with(tmp_path / "b", "bpe-llama", {"legacy": False})
    assert first.encode("the") == usual.encode("the")
    assert usual.encode("</s>the", add_special_tokens=False) == [2, *usual.encode("the")[1:]]
    assert first.encode("</s>the", add_special_tokens=False) != usual.encode("</s>the", add_special_tokens=False)
    assert b"".join(map(first.token_bytes, first.encode("</s>the"))) == b"the"


def test_unused_pieces_never_come_out() -> None:
    for name in ("unigram-t5", "bpe-llama"):
        model = read_model(GOLDENS / f"{name}.model")
        i = model.pieces.texts.index("\u2581the")
        types = model.pieces.types.copy()
        types[i] = 5
        assert i in build(model.pieces).encode("see the sea").ids
        assert i not in build(replace(model.pieces, types=types)).encode("see the sea").ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: b"IQ== 0\nIg== 1\n" * 50, "no SentencePiece model"),  # tiktoken's
        (lambda content: content[:-1], "no SentencePiece model"),
        (lambda _: b"", "no pieces"),
        (lambda content: content + b"\x12\x02\x18\x03", "type 'word'"),
        (lambda content: content + b"\x12\x03\xc0\x01\x01", "treat_whitespace_as_suffix"),
    ],
)
def test_other_files(tmp_path: Path, change: object, message: str) -> None:
    content = (GOLDENS / "bpe-llama.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(change(content))  # type: ignore[operator]
    with pytest.raises(UnsupportedError, match=message):
        read_model(tmp_path / "tokenizer.model")


def test_a_damaged_map_of_characters_never_reaches_the_library() -> None:
    """Whatever is accepted can be followed by any text."""
    model = read_model(GOLDENS / "unigram-t5.model")
    random, sound = np.random.default_rng(1), model.pieces.characters
    refused = 0
    for _ in range(100):
        content = bytearray(sound)
        for at in random.integers(0, len(content), 3):
            content[at] = random.integers(0, 256)
        try:
            tokenizer = build(replace(model.pieces, characters=bytes(content)))
        except Exception:  # ours, or the library's own refusal; its panics are no Exception
            refused += 1
            continue
        tokenizer.encode("".join(map(chr, range(1, 0x3100, 3))))
    assert 0 < refused < 100
    for content in (b"abc", sound[:-30], b"\xff" * 100):
        with pytest.raises(ModelError, match="map of characters"):
            build(replace(model.pieces, characters=content))
