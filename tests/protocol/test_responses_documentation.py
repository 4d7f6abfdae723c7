"""The page about the responses API names every field, route, event and code that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cupola.protocol.responses import ContextFields, InputTokensRequest, ResponseRequest, ResponseStreamOptions
from cupola.server.app import ROUTES

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "python/cupola/server"
PAGE = (ROOT / "docs" / "responses.md").read_text()


def paragraph(beginning: str) -> str:
    """The paragraph of the page that begins so."""
    return PAGE[PAGE.index(beginning) :].partition("\n\n")[0]


@pytest.mark.parametrize("name", sorted(ResponseRequest.model_fields))
def test_every_field_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize(
    "name", sorted(ResponseRequest.IGNORED | InputTokensRequest.IGNORED | ResponseStreamOptions.IGNORED)
)
def test_every_ignored_field_is_documented(name: str) -> None:
    assert f"`{name}`" in paragraph("Accepted without any effect")


@pytest.mark.parametrize("name", sorted({**ContextFields.NEUTRAL, **ResponseRequest.NEUTRAL}))
def test_every_refused_field_is_documented(name: str) -> None:
    assert f"`{name}`" in paragraph("Refused by name")


def test_every_route_is_documented() -> None:
    routes = [route for route in ROUTES if route.path.startswith("/v1/responses")]
    assert len(routes) == 6
    for route in routes:
        assert f"`{route.method} {route.path}`" in PAGE


def test_every_event_is_documented() -> None:
    sources = [SERVER / "responses_parts.py", SERVER / "responses_frames.py"]
    events = {name for source in sources for name in re.findall(r'b"(response\.[a-z_.]+)"', source.read_text())}
    assert len(events) > 15
    assert {event for event in events if event not in PAGE} == set()


def test_every_code_of_its_own_is_documented() -> None:
    codes = {code for path in SERVER.glob("responses_*.py") for code in re.findall(r'code="(\w+)"', path.read_text())}
    assert len(codes) == 5
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()


@pytest.mark.parametrize("option", ["--responses-ttl", "--responses-entries", "--responses-memory"])
def test_every_option_is_documented(option: str) -> None:
    assert f"`{option}`" in PAGE
    assert option[2:].replace("-", "_") in (ROOT / "python/cupola/cli/serve.py").read_text()
