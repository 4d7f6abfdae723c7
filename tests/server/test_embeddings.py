"""`POST /v1/embeddings` on the scripted encoder, beside a scripted model that generates."""

from __future__ import annotations

import base64
from array import array
from collections.abc import AsyncIterator

import httpx
import pytest

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.options import EngineOptions
from cupola.protocol.embeddings import EmbeddingList
from cupola.server.app import create_app
from cupola.server.lifecycle import Lifecycle
from cupola.server.served_encoder import ServedEncoder
from cupola.server.served_model import ServedModel
from cupola.server.services import ServerSettings
from cupola.server.shelf import ModelShelf
from native.test_embedder import expected

PATH = "/v1/embeddings"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    small = EngineOptions(max_context=32)
    async with (
        AsyncEngine("scripted-encoder", config=small) as encoder,
        AsyncEngine("scripted", config=EngineOptions(num_pages=64)) as model,
    ):
        shelf = ModelShelf.holding(ServedEncoder.of(encoder, ["vectors"]), ServedModel.of(model, ["words"]))
        app = create_app(shelf, ServerSettings(), Lifecycle())
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
            yield opened


async def ask(client: httpx.AsyncClient, status: int = 200, **body: object) -> dict[str, object]:
    response = await client.post(PATH, json={"model": "vectors", **body})
    assert response.status_code == status, response.text
    answer: dict[str, object] = response.json()
    return answer


async def refused(client: httpx.AsyncClient, **body: object) -> tuple[object, object]:
    error = (await ask(client, 400, **body))["error"]
    assert isinstance(error, dict)
    assert error["type"] == "invalid_request_error"
    return error["param"], error["code"]


@pytest.mark.parametrize(
    ("given", "texts"),
    [("ab", ["ab"]), (["ab", "c"], ["ab", "c"]), ([97, 98], ["ab"]), ([[97, 98], [99]], ["ab", "c"])],
)
async def test_the_four_forms_of_input(client: httpx.AsyncClient, given: object, texts: list[str]) -> None:
    answer = await ask(client, input=given)
    assert EmbeddingList.model_validate(answer)
    tokens = sum(map(len, texts))
    assert answer == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": expected(list(text.encode()))}
            for i, text in enumerate(texts)
        ],
        "model": "vectors",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


async def test_base64_dimensions_user_and_null(client: httpx.AsyncClient) -> None:
    answer = await ask(client, input="ab", encoding_format="base64", dimensions=3, user="me")
    (row,) = EmbeddingList.model_validate(answer).data
    assert isinstance(row.embedding, str)
    values = array("f")
    values.frombytes(base64.b64decode(row.embedding))
    assert values.tolist() == expected([97, 98])[:3]
    assert (await ask(client, input="ab", encoding_format=None, dimensions=None))["usage"]


async def test_inputs_that_are_too_long(client: httpx.AsyncClient) -> None:
    assert await refused(client, input=["a", "b" * 33]) == ("input", "context_length_exceeded")
    assert (await ask(client, input="b" * 33, truncate_prompt_tokens=-1))["usage"] == {
        "prompt_tokens": 32,
        "total_tokens": 32,
    }


async def test_many_inputs(client: httpx.AsyncClient) -> None:
    inputs = [f"{i}" for i in range(2048)]
    answer = EmbeddingList.model_validate(await ask(client, input=inputs))
    assert [row.embedding for row in answer.data] == [tuple(expected(list(text.encode()))) for text in inputs]
    assert (await refused(client, input=[*inputs, "x"]))[0] == "input"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [259]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 9}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "truncate_prompt_tokens": 33}, "truncate_prompt_tokens"),
        ({"input": "a", "task": "query"}, "task"),
    ],
)
async def test_what_is_refused(client: httpx.AsyncClient, body: dict[str, object], param: str) -> None:
    named, _ = await refused(client, **body)
    assert str(named).split(".")[0] == param


async def test_a_failure_is_the_servers(client: httpx.AsyncClient) -> None:
    await ask(client, 500, input="<|im_end|>")
    await ask(client, input="fine")


async def test_each_kind_of_model_says_what_it_is_for(client: httpx.AsyncClient) -> None:
    assert await refused(client, model="words", input="a") == ("model", "wrong_model")
    for path, body in (
        ("chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("completions", {"prompt": "a"}),
    ):
        response = await client.post(f"/v1/{path}", json={"model": "vectors", **body})
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith("The model `vectors` makes embeddings")
    cards = {card["id"]: card["capabilities"] for card in (await client.get("/v1/models")).json()["data"]}
    assert cards["vectors"] == ["embeddings", "rerank"]
    assert "embeddings" not in cards["words"]
    assert (await client.get("/metrics")).status_code == 200
