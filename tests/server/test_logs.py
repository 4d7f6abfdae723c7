"""The log: text for people, JSON for programs, and the request's id in every line that belongs to one."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cupola.engine.async_engine import AsyncEngine
from cupola.server.choices import LogFormat
from cupola.server.logs import JsonFormatter, TextFormatter
from stand import COMPLETIONS, Stand, open_stand

BODY = {"model": "scripted", "prompt": "x", "max_tokens": 2}


@contextmanager
def log_of(log_format: LogFormat) -> Iterator[io.StringIO]:
    """What Cupola's loggers write meanwhile."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger("cupola")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield written
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def test_json_lines_say_what_text_lines_say(stand: Stand) -> None:
    with log_of("json") as written:
        await stand.client.post(COMPLETIONS, json=BODY, headers={"x-request-id": "mine"})
        await stand.client.post(COMPLETIONS, json=BODY | {"model": "none"}, headers={"x-request-id": "other"})
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    answered, refused = (line for line in lines if line["logger"] == "cupola.access")
    assert answered["request_id"] == "mine"
    assert answered["level"] == "info"
    assert answered["time"].endswith("+00:00")
    assert {name: answered[name] for name in ("method", "path", "status", "model", "error")} == {
        "method": "POST",
        "path": COMPLETIONS,
        "status": 200,
        "model": "scripted",
        "error": None,
    }
    assert (answered["prompt_tokens"], answered["completion_tokens"]) == (1, 2)
    assert 0 < answered["time_to_first_token_ms"] <= answered["duration_ms"]
    assert (refused["request_id"], refused["status"], refused["error"]) == ("other", 404, "model_not_found")


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_every_line_of_a_request_has_its_id(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, log_format: LogFormat
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with log_of(log_format) as written:
        answers = await asyncio.gather(
            *(stand.client.post(COMPLETIONS, json=BODY, headers={"x-request-id": f"id-{i}"}) for i in range(5))
        )
        monkeypatch.setattr(AsyncEngine, "submit", fail)
        failed = await stand.client.post(COMPLETIONS, json=BODY, headers={"x-request-id": "bug"})
    assert {answer.status_code for answer in answers} == {200}
    assert (failed.status_code, failed.headers["x-request-id"]) == (500, "bug")
    assert failed.json()["error"]["code"] == "internal_error"
    assert "ZeroDivisionError" not in failed.text
    text = written.getvalue()
    assert "ZeroDivisionError" in text
    starts = [line for line in text.splitlines() if re.match(r"\{|\d\d:\d\d:\d\d [A-Z]+ ", line)]
    for request_id in (*(f"id-{i}" for i in range(5)), "bug"):
        assert sum(request_id in line for line in starts) >= 2, f"the engine's line or the server's lacks {request_id}"
    assert all(any(request_id in line for request_id in ("id-", "bug")) for line in starts)


async def test_a_stream_that_fails_leaves_its_error_in_the_log() -> None:
    async with open_stand("scripted:fail_at_step=3") as stand:
        with log_of("json") as written:
            body = BODY | {"max_tokens": 10, "ignore_eos": True, "stream": True}
            answer = await stand.client.post(COMPLETIONS, json=body, headers={"x-request-id": "mine"})
    assert answer.status_code == 200
    assert "engine_error" in answer.text
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert {line["request_id"] for line in lines} == {"mine"}
    (failed,) = (line for line in lines if line["level"] == "error")
    assert failed["message"].startswith("a stream failed: ")
    assert (lines[-1]["status"], lines[-1]["error"]) == (200, "engine_error")


def test_a_json_line_is_one_line() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "a\nb \x1b[31m %s", ("ü",), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "\x1b" not in line
    assert json.loads(line)["message"] == "a\nb \x1b[31m ü"


def test_outside_of_requests_there_is_no_id() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "hello", (), None)
    assert TextFormatter().format(record).endswith(" INFO     hello")
    assert "request_id" not in json.loads(JsonFormatter().format(record))
