"""`rerank`, `similarity` and `classify` on the scripted encoders, whose token ids are the bytes of a text."""

from __future__ import annotations

import math

import pytest

from cupola import AsyncEngine, Engine, EngineOptions
from cupola.engine.report import RequestReport
from cupola.engine.request import FinishReason
from cupola.engine.reranking import PairOptions
from cupola.errors import ContextLengthError, EngineError, RequestError
from native.test_embedder import expected

SMALL = EngineOptions(max_context=32)


def number(first: str, second: str) -> float:
    """What the scripted reranker makes of a pair: the bytes of both, those of the second of type 1."""
    types = [0] * len(first) + [1] * len(second)
    return expected([*first.encode(), *second.encode()], types)[0]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_documents_come_in_the_order_of_their_scores() -> None:
    documents = [f"document {i}" for i in range(40)]
    with Engine("scripted-reranker") as engine:
        assert engine.manifest.task == "classify"
        found = engine.rerank("query", documents, options=PairOptions(activate=False))
        numbers = [number("query", document) for document in documents]
        assert [one.index for one in found] == sorted(range(40), key=lambda i: -numbers[i])
        assert [one.score for one in found] == sorted(numbers, reverse=True)
        assert {one.num_tokens for one in found} == {len("querydocument 0"), len("querydocument 10")}
        best = engine.rerank("query", documents, top_n=3)
        assert [one.index for one in best] == [one.index for one in found[:3]]
        assert [one.score for one in best] == pytest.approx([sigmoid(one.score) for one in found[:3]], rel=1e-12)
        pairs = [("a", "b"), ("b", "a")]
        assert [one.score for one in engine.similarity(pairs)] == [sigmoid(number(*pair)) for pair in pairs]
        assert engine.rerank("query", []) == []


def test_pairs_that_are_too_long() -> None:
    with Engine("scripted-reranker", config=SMALL) as engine:
        with pytest.raises(ContextLengthError, match=r"`documents\.1` has 33 tokens") as caught:
            engine.rerank("q", ["a", "b" * 32])
        assert caught.value.param == "documents.1"
        raw = PairOptions(truncate=-1, activate=False)
        # The longer text is cut first; where both are long, to halves.
        (one,) = engine.similarity([("q" * 4, "b" * 99)], raw)
        assert (one.num_tokens, one.score) == (32, number("q" * 4, "b" * 28))
        (one,) = engine.similarity([("q" * 50, "b" * 99)], raw)
        assert (one.num_tokens, one.score) == (32, number("q" * 16, "b" * 16))
        (one,) = engine.similarity([("q" * 50, "b" * 3)], raw)
        assert (one.num_tokens, one.score) == (32, number("q" * 29, "b" * 3))
        (one,) = engine.similarity([("q" * 4, "b" * 99)], PairOptions(second_limit=5, activate=False))
        assert one.score == number("q" * 4, "b" * 5)
        with pytest.raises(RequestError, match="truncate_prompt_tokens"):
            engine.rerank("q", ["a"], options=PairOptions(truncate=33))


def test_an_encoder_ranks_by_cosine() -> None:
    documents = ["ab", "zz", "q"]
    with Engine("scripted-encoder", config=SMALL) as engine:
        found = engine.rerank("q", documents)

        def cosine(document: str) -> float:
            a, b = expected(list(b"q")), expected(list(document.encode()))
            lengths = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
            return sum(x * y for x, y in zip(a, b, strict=True)) / lengths

        assert found[0].index == 2
        assert [one.score for one in found] == pytest.approx(sorted(map(cosine, documents), reverse=True), abs=1e-12)
        with pytest.raises(ContextLengthError) as caught:
            engine.rerank("q", ["a", "b" * 33])
        assert caught.value.param == "documents"
        whole = engine.rerank("q", ["b" * 32])
        assert engine.rerank("q", ["b" * 99], options=PairOptions(truncate=-1)) == whole
        assert engine.rerank("q", ["b" * 99], options=PairOptions(second_limit=99)) == whole


def test_labels_of_texts() -> None:
    with Engine("scripted-classifier", config=SMALL) as engine:
        plain = engine.classify(["ab", [97, 98], "c"], activate=False)
        assert [list(one.scores) for one in plain] == [expected(list(t))[:3] for t in (b"ab", b"ab", b"c")]
        scored = engine.classify(["ab", "c"])
        for one, numbers in zip(scored, (plain[0].scores, plain[2].scores), strict=True):
            powers = [math.exp(x) for x in numbers]
            assert one.scores == pytest.approx([power / sum(powers) for power in powers])
            assert one.label == ("bad", "fair", "good")[one.scores.index(max(one.scores))]
        with pytest.raises(RequestError, match="has 3 labels, but a reranker has one"):
            engine.rerank("q", ["a"])
        with pytest.raises(EngineError, match="a token that fails"):
            engine.classify(["<|im_end|>"])


def test_each_kind_says_what_it_cannot_do() -> None:
    with Engine("scripted-reranker") as engine, pytest.raises(RequestError, match="cannot make embeddings"):
        engine.embed(["a"])
    with Engine("scripted-encoder") as engine, pytest.raises(RequestError, match="cannot classify"):
        engine.classify(["a"])
    with Engine("scripted", config=EngineOptions(num_pages=8)) as engine:
        for call in (lambda: engine.rerank("q", ["a"]), lambda: engine.classify(["a"])):
            with pytest.raises(RequestError, match="generates text and cannot") as caught:
                call()
            assert caught.value.param == "model"


async def test_requests_are_reported_when_they_end() -> None:
    reports: list[RequestReport] = []
    async with AsyncEngine("scripted-reranker") as engine:
        engine.watch(reports.append)
        await engine.rerank("query", ["a", "bc"])
        with pytest.raises(EngineError):
            await engine.rerank("query", ["<|im_end|>"])
    assert [(one.prompt_tokens, one.finish) for one in reports] == [(13, FinishReason.STOP), (6, FinishReason.ERROR)]
