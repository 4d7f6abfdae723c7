"""Who may come in, and how large: other web pages, heads, bodies, nesting."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from cupola.errors import UsageError
from cupola.server.cors import cors_layer
from cupola.server.http_head import MAX_HEAD_BYTES, MAX_HEADERS
from cupola.server.services import ServerSettings
from serving import ServerProcess
from stand import COMPLETIONS, Stand, open_stand

HOME = "https://home.example"
ELSEWHERE = "https://elsewhere.example"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}
BODY = {"model": "scripted", "prompt": "x", "max_tokens": 1}


async def test_pages_elsewhere_get_nothing_by_default(stand: Stand) -> None:
    for answer in (
        await stand.client.options(COMPLETIONS, headers={"origin": HOME} | PREFLIGHT),
        await stand.client.post(COMPLETIONS, json=BODY, headers={"origin": HOME}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_named_pages_may_use_the_api() -> None:
    settings = ServerSettings(api_keys=("secret",), cors_origins=(HOME, "http://localhost:3000"))
    async with open_stand(settings=settings) as stand:
        # A browser asks without the key.
        asked = await stand.client.options(COMPLETIONS, headers={"origin": HOME} | PREFLIGHT)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == HOME
        assert "authorization" in asked.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in asked.headers
        key = {"authorization": "Bearer secret"}
        answer = await stand.client.post(COMPLETIONS, json=BODY, headers={"origin": HOME} | key)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, HOME)
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
        refused = await stand.client.post(COMPLETIONS, json=BODY, headers={"origin": HOME})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, HOME)
        for headers in (PREFLIGHT, key):
            elsewhere = await stand.client.options(COMPLETIONS, headers={"origin": ELSEWHERE} | headers)
            assert "access-control-allow-origin" not in elsewhere.headers


@pytest.mark.parametrize("origin", ["home.example", "https://home.example/", "ftp://x", "https://", "", "null"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(UsageError, match="--cors-origin"):
        cors_layer([origin])


@pytest.mark.parametrize(("depth", "status"), [(100, 200), (150, 200), (250, 400), (5000, 400)])
async def test_nesting_has_a_bound(stand: Stand, depth: int, status: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    body = json.dumps(BODY)[:-1] + f', "metadata": {nested}}}'
    answer = await stand.client.post(COMPLETIONS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["code"] == "invalid_json"
        assert "recursion limit" in answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("scripted", "--max-body-size", "2KB") as server:
        yield server


def exchange(server: ServerProcess, *chunks: bytes, pause: float = 0.0) -> tuple[int, dict[str, dict[str, str]], bytes]:
    """Sends bytes, a pause behind each piece, and reads to the end of the connection: status, body, head."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=100) as connection:
        try:
            for chunk in chunks:
                connection.sendall(chunk)
                time.sleep(pause)
        except OSError:
            pass  # the server had enough
        answer = b""
        try:
            while data := connection.recv(65536):
                answer += data
        except ConnectionResetError:
            pass  # it closed with bytes of ours unread, after its answer
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body), head


START = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "chunks",
    [
        (START, b"".join(b"a%d: b\r\n" % i for i in range(MAX_HEADERS + 1)), b"\r\n"),
        (START + b"big: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",),
        (START + b"endless: ", *[b"x" * 16384] * 40),
        (b"GET /v1/models?" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",),
        (b"GET /", *[b"x" * 16384] * 40),
    ],
    ids=["many headers", "a large header", "an endless header", "a long URL", "an endless URL"],
)
def test_a_head_that_is_too_large_is_431(server: ServerProcess, chunks: tuple[bytes, ...]) -> None:
    status, body, head = exchange(server, *chunks)
    assert status == 431
    assert body["error"]["code"] == "headers_too_large"
    assert body["error"]["type"] == "invalid_request_error"
    assert b"x-request-id: req-" in head
    assert server.client.get("/health").status_code == 200


def test_a_head_within_the_bounds_is_served(server: ServerProcess) -> None:
    headers = b"".join(b"a%d: b\r\n" % i for i in range(MAX_HEADERS - 3))
    status, body, _ = exchange(server, START + headers + b"big: " + b"x" * 50_000 + b"\r\n\r\n")
    assert status == 200
    assert body["object"] == "list"


def test_a_head_within_the_bounds_may_arrive_in_pieces(server: ServerProcess) -> None:
    pieces = (b"big: " + b"x" * 25_000, b"x" * 25_000, b"\r\n\r\n")
    status, _, _ = exchange(server, START, *pieces, pause=0.05)
    assert status == 200


def test_many_requests_on_one_connection_are_bounded_each_by_itself(server: ServerProcess) -> None:
    headers = {"big": "x" * 50_000}
    assert {server.client.get("/v1/models", headers=headers).status_code for _ in range(5)} == {200}


def test_errors_about_messages_have_anthropics_shape(server: ServerProcess) -> None:
    status, body, _ = exchange(server, b"POST /v1/messages HTTP/1.1\r\nbig: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n")
    assert (status, body["type"]) == (431, "error")


@pytest.mark.parametrize(
    "garbage", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\na\x00b: c\r\n\r\n"]
)
def test_what_is_not_http_is_400_in_the_usual_shape(server: ServerProcess, garbage: bytes) -> None:
    status, body, _ = exchange(server, garbage)
    assert (status, body["error"]["code"]) == (400, "invalid_http")


def test_the_bound_of_a_body_is_the_operators(server: ServerProcess) -> None:
    for size, status in ((1000, 200), (2000, 413)):
        assert server.client.post(COMPLETIONS, json=BODY | {"prompt": "x" * size}).status_code == status
