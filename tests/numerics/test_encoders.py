"""Encoders against transformers and sentence-transformers (`tests/goldens`), and against themselves bit for bit.

pytest tests/numerics/test_encoders.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from cupola import Engine, EngineOptions
from cupola.engine.backends.select import open_model
from cupola.engine.reranking import PairOptions
from native.test_embedder import wait
from tiny_encoder_gguf import GGUF_ENCODERS, llama_cpp_texts, spelled, write_encoder_gguf
from tiny_encoders import TINY_CLASSIFIERS, TINY_ENCODERS, TinyEncoder

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
LEAST_COSINE = 0.9999
LLAMA_CPP_TOLERANCE = 5e-3  # its GELU is a table of float16
TOLERANCE = {"f32": 1e-3, "q16": 5e-3}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a.astype(np.float64) * b).sum(axis=1) / lengths


def vectors(engine: Engine, inputs: list[list[int]] | list[str]) -> np.ndarray:
    return np.array([one.vector for one in engine.embed(inputs)])


@pytest.mark.parametrize("tiny", TINY_ENCODERS, ids=lambda tiny: tiny.name)
def test_vectors_are_those_of_transformers(tiny: TinyEncoder, tmp_path: Path) -> None:
    tiny.write(tmp_path / tiny.name)
    expected = np.load(GOLDENS / "tiny_encoders.npz")[tiny.name]
    for quant in ("f32", "q16") if tiny is TINY_ENCODERS[0] else ("f32",):
        with Engine(str(compiled_folder(str(tmp_path / tiny.name), quant))) as engine:
            together = vectors(engine, tiny.texts())
            assert np.abs(together - expected).max() < TOLERANCE[quant]
            alone = np.concatenate([vectors(engine, [text]) for text in tiny.texts()])
            np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("tiny", TINY_CLASSIFIERS, ids=lambda tiny: tiny.name)
def test_scores_are_those_of_transformers(tiny: TinyEncoder, tmp_path: Path) -> None:
    """The model's own numbers, before anything makes scores of them; pairs with their token types."""
    tiny.write(tmp_path / tiny.name)
    expected = np.load(GOLDENS / "tiny_encoders.npz")[tiny.name]
    folder = compiled_folder(str(tmp_path / tiny.name), "f32")
    embedder = open_model(str(folder), "auto", EngineOptions()).embedder
    assert embedder is not None
    texts, types = tiny.texts(), [tiny.types_of(text) for text in tiny.texts()]
    embedder.add(1, texts, types)
    for i, (text, kinds) in enumerate(zip(texts, types, strict=True)):
        embedder.add(2 + i, [text], [kinds])
    found = {result.job_id: np.frombuffer(result.vectors, np.float32) for result in wait(embedder, 1 + len(texts))}
    together = found[1].reshape(expected.shape)
    assert np.abs(together - expected).max() < TOLERANCE["f32"]
    np.testing.assert_array_equal(np.concatenate([found[2 + i] for i in range(len(texts))]), found[1])
    embedder.close()


@pytest.mark.parametrize("tiny", GGUF_ENCODERS, ids=lambda tiny: tiny.name)
def test_vectors_are_those_of_llama_cpp(tiny: TinyEncoder, tmp_path: Path) -> None:
    """llama.cpp read the GGUF file, which is this model to the bit (`tests/weights/test_gguf_encoders.py`)."""
    tiny.write(tmp_path / tiny.name)
    expected = np.load(GOLDENS / "llama_cpp_encoders.npz")[tiny.name]
    texts = llama_cpp_texts(tiny)
    with Engine(str(compiled_folder(str(tmp_path / tiny.name), "f32"))) as engine:
        if tiny.labels:
            pairs = [[2, *texts[0], 3, *document] for document in texts[1:]]
            found = np.array([one.scores[0] for one in engine.classify(pairs, activate=False)])
        else:
            found = vectors(engine, [[2, *text, 3] for text in texts])
            found /= np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=LLAMA_CPP_TOLERANCE)


def test_a_gguf_file_ranks(tmp_path: Path) -> None:
    tiny = next(tiny for tiny in GGUF_ENCODERS if tiny.name == "xlm-roberta-reranker")
    write_encoder_gguf(tmp_path / "m.gguf", tiny)
    query, *documents = llama_cpp_texts(tiny)
    with Engine(str(compiled_folder(str(tmp_path / "m.gguf"), "f32"))) as engine:
        assert engine.manifest.task == "classify"
        pairs = [(spelled(query), spelled(document)) for document in documents]
        found = engine.similarity(pairs, PairOptions(activate=False))
        read = engine.classify([[2, *query, 3, *document, 3] for document in documents], activate=False)
        (single,) = engine.classify([spelled(query)], activate=False)
        assert single == engine.classify([[2, *query, 3]], activate=False)[0]
    assert [one.score for one in found] == [one.scores[0] for one in read]


def test_a_pair_is_read_as_the_tokenizer_writes_it(tmp_path: Path) -> None:
    tiny = TINY_CLASSIFIERS[0]
    tiny.write(tmp_path / tiny.name)
    folder = str(compiled_folder(str(tmp_path / tiny.name), "f32"))
    with Engine(folder) as engine:
        (one,) = engine.rerank("t7 t8", ["t9 t10 t11"], options=PairOptions(activate=False))
        (scored,) = engine.rerank("t7 t8", ["t9 t10 t11"])
    embedder = open_model(folder, "auto", EngineOptions()).embedder
    assert embedder is not None
    embedder.add(1, [[2, 7, 8, 3, 9, 10, 11, 3]], [[0, 0, 0, 0, 1, 1, 1, 1]])
    (found,) = wait(embedder, 1)
    embedder.close()
    assert one.score == np.frombuffer(found.vectors, np.float32)[0]
    assert scored.score == pytest.approx(1 / (1 + np.exp(-one.score)))


@pytest.mark.model
@pytest.mark.parametrize("quant", ["f32", None])
def test_vectors_are_those_of_sentence_transformers(quant: str | None) -> None:
    texts = json.loads((GOLDENS / "embedding_texts.json").read_text())
    expected = np.load(GOLDENS / "embeddings.npz")["vectors"]
    assert len(texts) >= 30
    with Engine(str(compiled_folder("minilm", quant)), config=EngineOptions(max_batch=5)) as engine:
        together = vectors(engine, texts)
        assert cosines(together, expected).min() >= LEAST_COSINE
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(vectors(engine, texts[::-1])[::-1], together)
        front = np.array([one.vector for one in engine.embed(texts[:3], dimensions=100)])
        np.testing.assert_allclose(np.linalg.norm(front, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(cosines(front, together[:3, :100]), 1, atol=1e-6)


@pytest.mark.model
def test_a_long_text_is_cut_where_sentence_transformers_cuts_it() -> None:
    with Engine(str(compiled_folder("minilm"))) as engine:
        long = "word " * 400
        cut, ids = engine.embed([long, [*engine.tokenizer.encode(long)[:255], 102]], truncate=-1)
        assert cut.num_tokens == ids.num_tokens == 256
        assert cut.vector == ids.vector
