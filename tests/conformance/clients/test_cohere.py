"""Cohere's own package, unchanged: documents in the order of their relevance, by both versions of its API."""

from __future__ import annotations

import cohere
import pytest

QUERY = "Which animal eats bamboo?"
DOCUMENTS = [
    "The stock market fell sharply on Monday.",
    "Giant pandas spend most of the day eating bamboo.",
    "Bamboo is a fast-growing grass.",
]


def test_the_second_version(url: str) -> None:
    client = cohere.ClientV2(api_key="none", base_url=url)
    answer = client.rerank(model="encoder", query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=50)
    assert [one.index for one in answer.results] == [1, 2]
    assert 1 > answer.results[0].relevance_score > answer.results[1].relevance_score > 0
    assert answer.id


def test_the_first_version(url: str) -> None:
    client = cohere.Client(api_key="none", base_url=url)
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1]}, DOCUMENTS[2]]
    answer = client.rerank(model="encoder", query=QUERY, documents=documents, return_documents=True)
    assert [one.index for one in answer.results] == [1, 2, 0]
    assert answer.results[0].document is not None
    assert answer.results[0].document.text == DOCUMENTS[1]


async def test_without_blocking(url: str) -> None:
    client = cohere.AsyncClientV2(api_key="none", base_url=url)
    answer = await client.rerank(model="encoder", query=QUERY, documents=DOCUMENTS)
    assert len(answer.results) == 3


def test_an_error_names_the_field(url: str) -> None:
    client = cohere.ClientV2(api_key="none", base_url=url)
    with pytest.raises(cohere.BadRequestError) as caught:
        client.rerank(model="encoder", query=QUERY, documents=[])
    assert caught.value.body["error"]["param"] == "documents"
    with pytest.raises(cohere.BadRequestError, match="wrong_model"):
        client.rerank(model="model", query=QUERY, documents=DOCUMENTS)
