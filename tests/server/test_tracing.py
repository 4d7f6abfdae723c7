"""OpenTelemetry: one span a request, what it says, where it goes."""

from __future__ import annotations

import http.server
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.options import EngineOptions
from cupola.errors import UsageError
from cupola.server.app import create_app
from cupola.server.lifecycle import Lifecycle
from cupola.server.served_model import ServedModel
from cupola.server.services import ServerSettings
from cupola.server.shelf import ModelShelf
from cupola.server.tracing import open_tracing
from serving import ServerProcess
from stand import CHAT, COMPLETIONS

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY = {"model": "scripted", "prompt": "abc", "max_tokens": 4, "ignore_eos": True}


@asynccontextmanager
async def traced() -> Iterator[tuple[httpx.AsyncClient, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    tracer = TracerProvider()
    tracer.add_span_processor(SimpleSpanProcessor(exporter))
    async with AsyncEngine("scripted", config=EngineOptions(num_pages=64)) as engine:
        shelf = ModelShelf.holding(ServedModel.of(engine))
        app = create_app(shelf, ServerSettings(), Lifecycle(), tracer)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client, exporter


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_one_span(stream: bool) -> None:
    headers = {"x-request-id": "mine", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    async with traced() as (client, exporter):
        begin = time.perf_counter()
        await client.post(COMPLETIONS, json=BODY | {"stream": stream}, headers=headers)
        seconds = time.perf_counter() - begin
        for path in ("/v1/models", "/metrics", "/health"):
            await client.get(path)
        span = only(exporter)
    assert (span.name, span.kind) == ("text_completion scripted", SpanKind.SERVER)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    attributes = dict(span.attributes)
    assert 0 < attributes.pop("gen_ai.latency.time_to_first_token") <= seconds
    assert attributes == {
        "http.request.method": "POST",
        "url.path": COMPLETIONS,
        "http.response.status_code": 200,
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "cupola",
        "gen_ai.request.id": "mine",
        "gen_ai.request.model": "scripted",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
    }


async def test_refusals_and_bugs_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async with traced() as (client, exporter):
        await client.post(CHAT, json={"model": "none", "messages": [{"role": "user", "content": "x"}]})
        monkeypatch.setattr(AsyncEngine, "submit", fail)
        await client.post(COMPLETIONS, json=BODY)
        refused, failed = exporter.get_finished_spans()
    assert refused.name == f"POST {CHAT}"
    assert (refused.attributes["error.type"], refused.status.status_code) == ("model_not_found", StatusCode.UNSET)
    assert (failed.attributes["error.type"], failed.status.status_code) == ("internal_error", StatusCode.ERROR)


class Sink(http.server.BaseHTTPRequestHandler):
    """Takes what an exporter sends."""

    got: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_spans_reach_the_collector_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Collector(Sink):
        got: list[tuple[str, bytes]] = []  # noqa: RUF012 (a class of this test's own)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment=test")
        with ServerProcess("scripted", "--otel") as server:
            assert server.client.post(COMPLETIONS, json=BODY).status_code == 200
            server.process.terminate()
            assert server.end() == (0, server.end()[1])
        collector.shutdown()
    ((path, content),) = Collector.got
    assert path == "/v1/traces"
    (sent,) = ExportTraceServiceRequest.FromString(content).resource_spans
    resource = {attribute.key: attribute.value.string_value for attribute in sent.resource.attributes}
    assert (resource["service.name"], resource["deployment"]) == ("cupola", "test")
    assert [span.name for scope in sent.scope_spans for span in scope.spans] == ["text_completion scripted"]


def test_the_service_may_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    tracer = open_tracing()
    assert tracer.resource.attributes["service.name"] == "mine"
    tracer.shutdown()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UsageError, match="opentelemetry") as caught:
        open_tracing()
    assert caught.value.hint == "pip install 'cupola[otel]'"


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(UsageError, match="`grpc`"):
        open_tracing()
