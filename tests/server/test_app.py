"""Everything around the endpoints: routes, limits, keys, ids, health, metrics, the page."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cupola.server.access import log_line
from cupola.server.record import RequestRecord
from cupola.server.services import ServerSettings
from stand import CHAT, COMPLETIONS, Stand, open_stand, until

BODY = {"model": "scripted", "prompt": "x", "max_tokens": 2}


def assert_error_shape(payload: dict[str, object]) -> None:
    assert set(payload) == {"error"}
    assert set(payload["error"]) == {"message", "type", "param", "code"}


async def test_models_are_listed_and_found(stand: Stand) -> None:
    listed = (await stand.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["scripted", "alias"]
    assert (await stand.client.get("/v1/models/alias")).json() == listed["data"][1]
    limit = stand.engine.config.max_context
    assert listed["data"][0] == {
        "id": "scripted",
        "object": "model",
        "created": stand.model.created,
        "owned_by": "cupola",
        "max_model_len": limit,
        "capabilities": ["chat", "completions", "structured_outputs", "tools"],
        "state": "loaded",
        "type": "model",
        "display_name": "scripted",
        "created_at": listed["data"][0]["created_at"],
        "lifecycle": "active",
        "max_input_tokens": limit,
        "max_tokens": limit,
    }
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "scripted", "alias")
    missing = await stand.client.get("/v1/models/org/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/nothing", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/../pyproject.toml", 404, "not_found"),
    ],
)
async def test_wrong_routes_have_the_shape_of_errors(
    stand: Stand, method: str, path: str, status: int, code: str
) -> None:
    answer = await stand.client.request(method, path)
    assert answer.status_code == status
    assert_error_shape(answer.json())
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'"text"', b"null"])
async def test_bad_bodies_are_400(stand: Stand, content: bytes) -> None:
    for path in (CHAT, COMPLETIONS):
        answer = await stand.client.post(path, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert_error_shape(answer.json())


async def test_a_page_elsewhere_cannot_post_forms_here(stand: Stand) -> None:
    answer = await stand.client.post(COMPLETIONS, content=json.dumps(BODY), headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    preflight = await stand.client.options(COMPLETIONS, headers={"origin": "http://elsewhere"})
    assert "access-control-allow-origin" not in preflight.headers


async def test_large_bodies_are_413() -> None:
    async with open_stand(settings=ServerSettings(max_body_bytes=1000)) as stand:
        announced = await stand.client.post(COMPLETIONS, json=BODY | {"prompt": "x" * 1000})

        async def chunks() -> object:
            for _ in range(20):
                yield b"x" * 100

        headers = {"content-type": "application/json"}
        unannounced = await stand.client.post(COMPLETIONS, content=chunks(), headers=headers)
        assert "content-length" not in unannounced.request.headers
        for answer in (announced, unannounced):
            assert answer.status_code == 413
            assert_error_shape(answer.json())
        assert (await stand.client.post(COMPLETIONS, json=BODY)).status_code == 200


async def test_api_keys() -> None:
    async with open_stand(settings=ServerSettings(api_keys=("first", "second"))) as stand:
        for header in (
            None,
            "",
            "Bearer",
            "Bearer third",
            "Basic first",
            "first",
            "Bearer firs",
            "Bearer first second",
        ):
            headers = {} if header is None else {"authorization": header}
            for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/nothing"):
                answer = await stand.client.get(path, headers=headers)
                assert answer.status_code == 401, (header, path)
                assert answer.json()["error"]["type"] == "authentication_error"
                assert answer.headers["www-authenticate"] == "Bearer"
            assert (await stand.client.post(COMPLETIONS, json=BODY, headers=headers)).status_code == 401
        for header in ("Bearer first", "Bearer second", "bearer second"):
            answer = await stand.client.post(COMPLETIONS, json=BODY, headers={"authorization": header})
            assert answer.status_code == 200
        for path in ("/health", "/ready", "/", "/chat.js"):
            assert (await stand.client.get(path)).status_code == 200


async def test_request_ids(stand: Stand) -> None:
    own = await stand.client.get("/v1/models", headers={"x-request-id": "mine-1"})
    assert own.headers["x-request-id"] == "mine-1"
    ids = {(await stand.client.get("/v1/models")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    for unusable in ("a b", "x" * 129):
        answer = await stand.client.get("/v1/nothing", headers={"x-request-id": unusable})
        assert answer.headers["x-request-id"].startswith("req-")


async def test_one_log_line_a_request(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cupola.access"):
        await stand.client.post(COMPLETIONS, json=BODY, headers={"x-request-id": "mine-2"})
        await stand.client.get("/health")
        await stand.client.get("/v1/models")
    lines = [record.getMessage() for record in caplog.records if record.name == "cupola.access"]
    assert len(lines) == 2
    for part in ("POST", COMPLETIONS, " 200 ", "in     1", "out     2", "tok/s", "mine-2"):
        assert part in lines[0]


def test_log_lines_hold_no_line_breaks() -> None:
    line = log_line(RequestRecord("id", "GET", "/a\nb\x1b[31m"))
    assert line.isprintable()


async def test_metrics_show_the_engine_and_the_requests(stand: Stand) -> None:
    await stand.client.post(COMPLETIONS, json=BODY)
    await stand.client.get("/v1/secret-path")
    answer = await stand.client.get("/metrics")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    model = (("model_name", "scripted"),)
    assert samples[("cupola:kv_pages", model)] == 512
    assert samples[("cupola:kv_pages_free", model)] == 512
    assert samples[("cupola:generation_tokens_total", model)] == 2
    assert samples[("cupola:prompt_tokens_total", model)] == 1
    assert samples[("cupola:time_to_first_token_seconds_count", model)] == 1
    assert samples[("cupola:http_requests_total", (("path", COMPLETIONS), ("status", "200")))] == 1
    assert "secret-path" not in answer.text


async def test_a_drain_refuses_new_work_and_lets_the_rest_finish() -> None:
    async with open_stand("scripted:step_us=10000") as stand:
        running = asyncio.create_task(stand.client.post(COMPLETIONS, json=BODY | {"max_tokens": 100}))
        await until(lambda: stand.engine.stats().running == 1)
        stand.lifecycle.begin_drain()
        ready = await stand.client.get("/ready")
        assert ready.status_code == 503
        refused = await stand.client.post(COMPLETIONS, json=BODY)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "draining"
        assert int(refused.headers["retry-after"]) >= 1
        assert (await stand.client.get("/health")).status_code == 200
        assert await stand.lifecycle.wait_idle(100)
        assert len((await running).json()["choices"][0]["text"]) == 100


@pytest.mark.parametrize("stream", [False, True])
async def test_stopping_ends_what_runs_with_an_error(stream: bool) -> None:
    async with open_stand("scripted:step_us=1000") as stand:
        body = BODY | {"max_tokens": 4000, "stream": stream}
        running = asyncio.create_task(stand.client.post(COMPLETIONS, json=body))
        await until(lambda: stand.engine.stats().running == 1)
        await asyncio.sleep(0.02)
        assert not await stand.lifecycle.wait_idle(0.01)
        assert stand.lifecycle.stop() == 1
        answer = await running
        if stream:
            *_, error, done, end = answer.text.split("\n\n")
            assert (done, end) == ("data: [DONE]", "")
            assert json.loads(error.removeprefix("data: "))["error"]["code"] == "draining"
        else:
            assert answer.status_code == 503
        assert await stand.lifecycle.wait_idle(100)
        await until(lambda: stand.engine.stats().running == 0)
        assert stand.engine.stats().pages_free == 512


async def test_a_dead_engine_is_seen() -> None:
    async with open_stand() as stand:
        assert (await stand.client.get("/health")).json() == {"status": "ok"}
        await stand.engine.close()
        for path in ("/health", "/ready"):
            answer = await stand.client.get(path)
            assert answer.status_code == 503
            assert_error_shape(answer.json())
        assert (await stand.client.post(COMPLETIONS, json=BODY)).status_code == 500


async def test_the_page_is_served_whole(stand: Stand) -> None:
    page = await stand.client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in ("/style.css", "/chat.js", "/api.js", "/markdown.js", "/store.js", "/icon.svg"):
        asset = await stand.client.get(path)
        assert asset.status_code == 200, path
        assert "http://" not in asset.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in asset.text
        again = await stand.client.get(path, headers={"if-none-match": asset.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
