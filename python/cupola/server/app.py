"""The application: the route table, the layers around it, and the one place where an exception becomes a response.

A new endpoint is a module with a handler and one line in ROUTES.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from cupola.errors import CupolaError
from cupola.protocol.anthropic import AnthropicMessage, MessagesContext, MessagesRequest, TokensCount
from cupola.protocol.chat import ChatCompletion, ChatCompletionRequest
from cupola.protocol.classification import ClassifyList, ClassifyRequest
from cupola.protocol.completions import Completion, CompletionRequest
from cupola.protocol.embeddings import EmbeddingList, EmbeddingRequest
from cupola.protocol.errors import ApiError, api_error
from cupola.protocol.models import ModelCard, ModelList
from cupola.protocol.rerank import RerankList, RerankRequest
from cupola.protocol.responses import InputTokensRequest, ResponseRequest
from cupola.protocol.responses_object import DeletedResponse, InputTokens, ItemList, ResponseObject
from cupola.protocol.similarity import AnyScoreList, AnyScoreRequest
from cupola.protocol.status import Status
from cupola.protocol.tokenization import DetokenizedText, DetokenizeRequest, TokenizeRequest, TokenizerInfo, Tokens
from cupola.server.access import AccessLog
from cupola.server.auth import BearerAuth
from cupola.server.bugs import BugGuard
from cupola.server.chat import chat_completions
from cupola.server.classify import classify
from cupola.server.completions import completions
from cupola.server.cors import cors_layer
from cupola.server.dialect import dialect_of
from cupola.server.embeddings import embeddings
from cupola.server.health import health, ready
from cupola.server.json_response import error_response
from cupola.server.keys import KeyRing
from cupola.server.leases import LeaseKeeper
from cupola.server.lifecycle import DrainGate, Lifecycle
from cupola.server.limits import BodyLimit
from cupola.server.messages import count_tokens, messages
from cupola.server.metrics import metrics
from cupola.server.models import get_model, list_models
from cupola.server.openapi import complete, operation
from cupola.server.rerank import rerank
from cupola.server.responses_create import count_input_tokens, create_response
from cupola.server.responses_run import RunningResponses
from cupola.server.responses_store import ResponseStore
from cupola.server.responses_stored import ItemPage, cancel_response, delete_response, get_response, list_input_items
from cupola.server.score import score
from cupola.server.services import ServerSettings, Services
from cupola.server.shelf import ModelShelf
from cupola.server.telemetry import Telemetry
from cupola.server.tokenization import count_chat_tokens, detokenize, tokenize, tokenizer_info
from cupola.server.tracing import TracingLayer
from cupola.server.web import Asset, load_assets

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Handler = Callable[[Services, Request], Awaitable[Response]]

_LOG = logging.getLogger("cupola.server")


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the route table. All behind the handler is what the OpenAPI document says; `str` means plain text."""

    method: str
    path: str
    handler: Handler
    body: type[BaseModel] | None = None
    result: type[BaseModel] | type[str] | None = None
    query: type[BaseModel] | None = None


ROUTES = (
    Route("POST", "/v1/chat/completions", chat_completions, ChatCompletionRequest, ChatCompletion),
    Route("POST", "/v1/chat/completions/input_tokens", count_chat_tokens, ChatCompletionRequest, InputTokens),
    Route("POST", "/v1/completions", completions, CompletionRequest, Completion),
    Route("POST", "/v1/responses", create_response, ResponseRequest, ResponseObject),
    Route("POST", "/v1/responses/input_tokens", count_input_tokens, InputTokensRequest, InputTokens),
    Route("GET", "/v1/responses/{response_id}", get_response, result=ResponseObject),
    Route("DELETE", "/v1/responses/{response_id}", delete_response, result=DeletedResponse),
    Route("POST", "/v1/responses/{response_id}/cancel", cancel_response, result=ResponseObject),
    Route("GET", "/v1/responses/{response_id}/input_items", list_input_items, result=ItemList, query=ItemPage),
    Route("POST", "/v1/messages", messages, MessagesRequest, AnthropicMessage),
    Route("POST", "/v1/messages/count_tokens", count_tokens, MessagesContext, TokensCount),
    Route("POST", "/v1/embeddings", embeddings, EmbeddingRequest, EmbeddingList),
    Route("POST", "/v1/score", score, AnyScoreRequest, AnyScoreList),
    Route("POST", "/v1/rerank", rerank, RerankRequest, RerankList),
    Route("POST", "/v2/rerank", rerank, RerankRequest, RerankList),
    Route("POST", "/rerank", rerank, RerankRequest, RerankList),
    Route("POST", "/classify", classify, ClassifyRequest, ClassifyList),
    Route("POST", "/tokenize", tokenize, TokenizeRequest, Tokens),
    Route("POST", "/detokenize", detokenize, DetokenizeRequest, DetokenizedText),
    Route("GET", "/tokenizer_info", tokenizer_info, result=TokenizerInfo),
    Route("GET", "/v1/models", list_models, result=ModelList),
    Route("GET", "/v1/models/{model:path}", get_model, result=ModelCard),
    Route("GET", "/health", health, result=Status),
    Route("GET", "/live", health, result=Status),
    Route("GET", "/ready", ready, result=Status),
    Route("GET", "/metrics", metrics, result=str),
)
OPEN_PATHS = frozenset({"/health", "/live", "/ready"})  # no API key needed
QUIET_PATHS = OPEN_PATHS | {"/metrics"}  # asked every few seconds by machines: not in the log


def create_app(
    shelf: ModelShelf, settings: ServerSettings, lifecycle: Lifecycle, tracer: TracerProvider | None = None
) -> FastAPI:
    """Builds the application around its models; loading and closing them is the caller's.

    Raises:
        UsageError: a setting that cannot be.
    """
    assets = load_assets()
    telemetry = Telemetry(shelf, frozenset(route.path for route in ROUTES) | assets.keys(), settings.metrics_aliases)
    services = Services(shelf, lifecycle, telemetry, settings, ResponseStore(settings.responses), RunningResponses())
    app = FastAPI(
        title="Cupola",
        docs_url=None,  # that page, and the other, would load scripts from elsewhere
        redoc_url=None,
        middleware=_layers(services, frozenset(assets), tracer),
        exception_handlers=_EXCEPTION_HANDLERS,
    )
    for route in ROUTES:
        _add_route(app, route, services)
    _add_page(app, assets)
    with_keys = bool(settings.api_keys or settings.api_key_file)
    complete(app, [route.body for route in ROUTES if route.body is not None], with_keys=with_keys)
    return app


def _layers(services: Services, assets: frozenset[str], tracer: TracerProvider | None) -> list[Middleware]:
    """What lies around the endpoints, the outermost first."""
    settings = services.settings
    layers = [Middleware(AccessLog, observe=services.telemetry.observe, quiet_paths=QUIET_PATHS | assets)]
    if tracer is not None:
        layers.append(Middleware(TracingLayer, provider=tracer))
    layers.append(Middleware(BugGuard))
    if settings.cors_origins:
        layers.append(cors_layer(settings.cors_origins))
    if settings.locked:
        keys = KeyRing(settings.api_keys, settings.api_key_file)
        layers.append(Middleware(BearerAuth, keys=keys, open_paths=OPEN_PATHS | assets))
    layers.append(Middleware(DrainGate, lifecycle=services.lifecycle))
    layers.append(Middleware(BodyLimit, limit=settings.max_body_bytes))
    layers.append(Middleware(LeaseKeeper))
    return layers


def _add_route(app: FastAPI, route: Route, services: Services) -> None:
    async def endpoint(request: Request) -> Response:
        return await route.handler(services, request)

    app.add_api_route(
        route.path,
        endpoint,
        methods=[route.method],
        name=route.handler.__name__,
        description=route.handler.__doc__,
        response_model=None if route.result is str else route.result,
        response_class=Response if route.result is str else JSONResponse,
        responses={"default": {"model": dialect_of(route.path).error_body}},
        openapi_extra=operation(
            route.path, route.body, route.query, is_text=route.result is str, is_open=route.path in OPEN_PATHS
        ),
    )


def _add_page(app: FastAPI, assets: Mapping[str, Asset]) -> None:
    for path, asset in assets.items():

        async def endpoint(request: Request, asset: Asset = asset) -> Response:
            return asset.respond(request)

        app.add_route(path, endpoint, methods=["GET"], include_in_schema=False)


async def _on_api_error(_request: Request, error: ApiError) -> Response:
    return error_response(error)


async def _on_cupola_error(_request: Request, error: CupolaError) -> Response:
    answer = api_error(error)
    if answer.status >= 500:
        _LOG.error("%s", error.message)
    return error_response(answer)


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    """Starlette's own refusals: no such path, other method."""
    messages = {
        404: f"There is nothing at {request.method} {request.url.path[:200]}.",
        405: f"{request.url.path[:200]} does not take {request.method}.",
    }
    codes = {404: "not_found", 405: "method_not_allowed"}
    status = error.status_code
    message = messages.get(status, str(error.detail))
    headers = {"Allow": _allowed_methods(request)} if status == 405 else error.headers
    return error_response(ApiError(status, message, code=codes.get(status), headers=headers))


def _allowed_methods(request: Request) -> str:
    """All that the path takes; Starlette names those of its first route. `/a/b` is not a case of `/a/{name}` here."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in routes if route.path == routes[0].path for method in route.methods}))


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    """Nobody reads this response; its status is for the log."""
    return Response(status_code=499)


_EXCEPTION_HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    ApiError: _on_api_error,
    CupolaError: _on_cupola_error,
    HTTPException: _on_http_error,
    ClientDisconnect: _on_disconnect,
}
