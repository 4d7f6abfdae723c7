"""The page about the server names every field and every code that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cupola.protocol.base import WireModel
from cupola.protocol.chat import ChatCompletionRequest
from cupola.protocol.classification import ClassifyRequest
from cupola.protocol.completions import CompletionRequest
from cupola.protocol.generation import GenerationFields, StreamOptions
from cupola.protocol.rerank import RerankRequest
from cupola.protocol.score import ScoreRequest
from cupola.protocol.similarity import SimilarityRequest
from cupola.server.app import ROUTES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "server.md").read_text()
FIELDS = {name for model in (ChatCompletionRequest, CompletionRequest, ScoreRequest) for name in model.model_fields}


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_is_documented(name: str) -> None:
    assert f"`{name}" in PAGE


@pytest.mark.parametrize("model", [RerankRequest, SimilarityRequest, ClassifyRequest])
def test_every_field_of_rerankers_is_documented(model: type[WireModel]) -> None:
    page = (ROOT / "docs" / "rerankers.md").read_text()
    assert {name for name in {*model.model_fields, *model.IGNORED, *model.NEUTRAL} if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("name", sorted(GenerationFields.IGNORED | StreamOptions.IGNORED))
def test_every_ignored_field_is_documented(name: str) -> None:
    paragraph = PAGE[PAGE.index("Accepted and ignored") :].partition("\n\n")[0]
    assert f"`{name}`" in paragraph


def test_every_error_code_is_documented() -> None:
    sources = [*(ROOT / "python/cupola/server").glob("*.py"), ROOT / "python/cupola/protocol/errors.py"]
    codes = {code for source in sources for code in re.findall(r'code="(\w+)"', source.read_text())}
    assert len(codes) > 8
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()


def test_every_route_is_documented() -> None:
    for route in ROUTES:
        path = route.path.replace("{model:path}", "{id}")
        assert f"`{route.method} {path}`" in PAGE
