"""OpenTelemetry: one span for each request that does work, with the attributes of the conventions for generative AI.

Off unless it is asked for; needs the extra `otel`. Where spans go is told by OpenTelemetry's own environment variables
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and so on). A caller's `traceparent` is continued.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from cupola.errors import UsageError
from cupola.server.record import RequestRecord, record_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
_PROTOCOL = "http/protobuf"


def open_tracing() -> TracerProvider:
    """What makes spans and sends them; `shutdown` sends the last ones.

    Raises:
        UsageError: the extra is not installed, or the environment asks for another protocol.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UsageError(
            f"`--otel` needs a package that is not installed: {error.name}.", hint="pip install 'cupola[otel]'"
        ) from error
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if os.environ.get(variable, _PROTOCOL) != _PROTOCOL:
            raise UsageError(
                f"`{variable}` is `{os.environ[variable]}`, but spans are sent by {_PROTOCOL} only.",
                hint=f"unset it, or set it to {_PROTOCOL}",
            )
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "cupola"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class TracingLayer:
    """ASGI middleware: a span around each request that does work (POST)."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self._app = app
        self._tracer = provider.get_tracer("cupola.server")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        record = record_of(scope)
        with self._tracer.start_as_current_span("POST", extract(headers), SpanKind.SERVER) as span:
            try:
                await self._app(scope, receive, send)
            finally:
                _describe(span, record)


def _describe(span: Span, record: RequestRecord) -> None:
    """What was learned of the request until its end."""
    from opentelemetry.trace import StatusCode

    operation = _OPERATIONS.get(record.path)
    span.update_name(f"{operation} {record.model}" if operation and record.model else f"POST {record.path}")
    first_token = record.time_to_first_token
    attributes: dict[str, str | int | float | None] = {
        "http.request.method": record.method,
        "url.path": record.path,
        "http.response.status_code": record.status,
        "error.type": record.error_code or (str(record.status) if record.status >= 400 else None),
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "cupola",
        "gen_ai.request.id": record.id,
        "gen_ai.request.model": record.model,
        "gen_ai.usage.input_tokens": record.prompt_tokens or None,
        "gen_ai.usage.output_tokens": record.completion_tokens or None,
        "gen_ai.latency.time_to_first_token": first_token,
    }
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})
    if record.status >= 500:
        span.set_status(StatusCode.ERROR)
