"""`/v1/rerank`, `/v1/score` with pairs, `/classify`, and `/tokenize` for encoders: on the scripted ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.options import EngineOptions
from cupola.protocol.classification import ClassifyList
from cupola.protocol.rerank import RerankList
from cupola.protocol.similarity import SimilarityList
from cupola.server.app import create_app
from cupola.server.lifecycle import Lifecycle
from cupola.server.served_encoder import ServedEncoder
from cupola.server.served_model import ServedModel
from cupola.server.services import ServerSettings
from cupola.server.shelf import ModelShelf
from engine.test_reranking import number, sigmoid
from native.test_embedder import expected

Answer = dict[str, object]
PATHS = ("/v1/rerank", "/v2/rerank", "/rerank")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncExitStack() as stack:
        served: list[ServedEncoder | ServedModel] = []
        for name in ("reranker", "classifier", "encoder"):
            engine = AsyncEngine(f"scripted-{name}", config=EngineOptions(max_context=32))
            served.append(ServedEncoder.of(await stack.enter_async_context(engine), [name]))
        words = await stack.enter_async_context(AsyncEngine("scripted", config=EngineOptions(num_pages=64)))
        served.append(ServedModel.of(words, ["words"]))
        app = create_app(ModelShelf.holding(*served), ServerSettings(), Lifecycle())
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        yield await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))


async def ask(client: httpx.AsyncClient, path: str, status: int = 200, **body: object) -> Answer:
    response = await client.post(path, json=body)
    assert response.status_code == status, response.text
    answer: Answer = response.json()
    return answer


async def refused(client: httpx.AsyncClient, path: str, **body: object) -> tuple[object, object]:
    error = (await ask(client, path, 400, **body))["error"]
    assert isinstance(error, dict)
    return error["param"], error["code"]


@pytest.mark.parametrize("path", PATHS)
async def test_documents_in_order(client: httpx.AsyncClient, path: str) -> None:
    documents = ["ab", {"text": "c", "title": "not read"}, "def"]
    answer = RerankList.model_validate(
        await ask(client, path, model="reranker", query="q", documents=documents, use_activation=False)
    )
    numbers = [number("q", text) for text in ("ab", "c", "def")]
    assert [one.relevance_score for one in answer.results] == sorted(numbers, reverse=True)
    assert all(one.relevance_score == numbers[one.index] for one in answer.results)
    assert {one.index: one.document.text for one in answer.results if one.document} == {0: "ab", 1: "c", 2: "def"}
    assert answer.usage.model_dump() == {"prompt_tokens": 9, "total_tokens": 9}
    short = await ask(client, path, model="reranker", query="q", documents=documents, top_n=1, return_documents=False)
    best = max(range(3), key=lambda i: numbers[i])
    assert short["results"] == [{"index": best, "relevance_score": pytest.approx(sigmoid(numbers[best]))}]
    assert short["usage"] == answer.usage.model_dump()


async def test_cuts(client: httpx.AsyncClient) -> None:
    too_long = {"model": "reranker", "query": "q", "documents": ["a", "b" * 40]}
    assert await refused(client, "/v1/rerank", **too_long) == ("documents.1", "context_length_exceeded")
    answer = await ask(client, "/v1/rerank", **too_long, truncate_prompt_tokens=-1)
    assert answer["usage"] == {"prompt_tokens": 34, "total_tokens": 34}
    answer = await ask(client, "/v2/rerank", **too_long, max_tokens_per_doc=5)
    assert answer["usage"] == {"prompt_tokens": 8, "total_tokens": 8}


async def test_pairs(client: httpx.AsyncClient) -> None:
    one = SimilarityList.model_validate(await ask(client, "/v1/score", model="reranker", text_1="q", text_2="ab"))
    assert [(row.index, row.score) for row in one.data] == [(0, pytest.approx(sigmoid(number("q", "ab"))))]
    many = await ask(client, "/v1/score", model="reranker", text_1=["a", "b"], text_2=["c", "d"], use_activation=False)
    assert [row.score for row in SimilarityList.model_validate(many).data] == [number("a", "c"), number("b", "d")]
    each = await ask(client, "/v1/score", model="encoder", text_1="a", text_2=["a", "b"])
    scores = [row.score for row in SimilarityList.model_validate(each).data]
    assert scores[0] == pytest.approx(1)
    assert scores[1] < 1
    assert await refused(client, "/v1/score", model="reranker", text_1=["a", "b"], text_2="c") == (
        "text_1",
        "invalid_value",
    )
    assert (await refused(client, "/v1/score", model="reranker", text_1="a"))[0] == "text_2"
    scored = await ask(client, "/v1/score", model="words", prompt="a", continuations=["b"])
    assert scored["object"] == "list"


async def test_labels(client: httpx.AsyncClient) -> None:
    answer = ClassifyList.model_validate(
        await ask(client, "/classify", model="classifier", input=["ab", "c"], use_activation=False)
    )
    assert [list(row.probs) for row in answer.data] == [expected(list(text))[:3] for text in (b"ab", b"c")]
    assert all(row.num_classes == 3 and row.label in ("bad", "fair", "good") for row in answer.data)
    assert answer.usage.prompt_tokens == 3
    ids = await ask(client, "/classify", model="classifier", input=[97, 98])
    assert sum(ClassifyList.model_validate(ids).data[0].probs) == pytest.approx(1)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": "", "documents": ["a"]}, "query"),
        ({"query": "q"}, "documents"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": ["a", ""]}, "documents.1.text"),
        ({"query": "q", "documents": [{"body": "a"}]}, "documents.0.text"),
        ({"query": "q", "documents": "a"}, "documents"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "q", "documents": ["a"], "max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"query": "q", "documents": ["a"], "rank_fields": ["title"]}, "rank_fields"),
        ({"query": "q", "documents": ["a"], "truncate_prompt_tokens": 33}, "truncate_prompt_tokens"),
        ({"query": "q", "documents": ["a"], "language": "en"}, "language"),
    ],
)
async def test_what_is_refused(client: httpx.AsyncClient, body: dict[str, object], param: str) -> None:
    assert (await refused(client, "/v1/rerank", model="reranker", **body))[0] == param


async def test_each_kind_of_model_says_what_it_is_for(client: httpx.AsyncClient) -> None:
    pair = {"query": "q", "documents": ["a"]}
    for path, model, body in (
        ("/v1/rerank", "words", pair),
        ("/v1/rerank", "classifier", pair),
        ("/v1/score", "words", {"text_1": "a", "text_2": "b"}),
        ("/v1/score", "reranker", {"prompt": "a", "continuations": ["b"]}),
        ("/classify", "encoder", {"input": "a"}),
        ("/v1/embeddings", "reranker", {"input": "a"}),
        ("/v1/completions", "reranker", {"prompt": "a"}),
    ):
        assert await refused(client, path, model=model, **body) == ("model", "wrong_model")
    cards = {card["id"]: card["capabilities"] for card in (await client.get("/v1/models")).json()["data"]}
    assert cards["reranker"] == ["classify", "rerank"]
    assert cards["classifier"] == ["classify"]


async def test_a_failure_is_the_servers(client: httpx.AsyncClient) -> None:
    await ask(client, "/v1/rerank", 500, model="reranker", query="q", documents=["<|im_end|>"])
    await ask(client, "/v1/rerank", model="reranker", query="q", documents=["fine"])


async def test_tokens_of_encoders(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "/tokenize", model="reranker", prompt="ab")
    assert answer == {"count": 2, "max_model_len": 32, "tokens": [97, 98], "token_strs": None}
    assert (await ask(client, "/detokenize", model="encoder", tokens=[97, 98]))["prompt"] == "ab"
    messages = [{"role": "user", "content": "a"}]
    assert (await refused(client, "/tokenize", model="encoder", messages=messages))[0] == "messages"


async def test_requests_are_counted(client: httpx.AsyncClient) -> None:
    await ask(client, "/v1/rerank", model="reranker", query="q", documents=["ab", "c"])
    lines = (await client.get("/metrics")).text.splitlines()
    for name in (
        'request_success_total{finished_reason="stop",model_name="reranker"}',
        'e2e_request_latency_seconds_count{model_name="reranker"}',
        'request_prompt_tokens_count{model_name="reranker"}',
    ):
        assert f"cupola:{name} 1.0" in lines
    assert 'cupola:request_prompt_tokens_sum{model_name="reranker"} 5.0' in lines
