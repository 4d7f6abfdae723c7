"""What an endpoint gets beside its request: the models, and the state of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from starlette.requests import Request

from cupola.errors import CupolaError, OverloadedError
from cupola.protocol.errors import ApiError, api_error, unavailable
from cupola.protocol.models import Capability
from cupola.server.choices import MetricsAlias
from cupola.server.connection import until_disconnect
from cupola.server.leases import keep
from cupola.server.lifecycle import Lifecycle
from cupola.server.record import record_of
from cupola.server.responses_run import RunningResponses
from cupola.server.responses_store import ResponseStore, StoreLimits
from cupola.server.served_encoder import ServedEncoder
from cupola.server.served_model import ServedModel
from cupola.server.shelf import ModelShelf
from cupola.server.slot import ModelSlot, Served
from cupola.server.telemetry import Telemetry

_RETRY_AFTER = 5.0  # seconds, after a model could not be loaded

Kind = TypeVar("Kind")

_PURPOSES: Mapping[str, str] = MappingProxyType(
    {
        "generate": "generates text and is no encoder; embeddings and scores of texts come from an encoder",
        "embed": "makes embeddings; it answers /v1/embeddings, /v1/rerank and /v1/score, and cannot do this",
        "classify": "scores texts and pairs; it answers /classify, with one label /v1/rerank and /v1/score too, "
        "and cannot do this",
    }
)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the operator may choose about the server.

    Args:
        api_keys: any of them opens the API; none means that no key is needed.
        api_key_file: a file of more keys, one a line, which may change.
        cors_origins: web pages elsewhere that may use the API; none by default.
        max_body_bytes: largest request body.
        drain_seconds: how long a drain waits for the requests in flight.
        metrics_aliases: servers under whose names metrics are published too: `vllm`.
        responses: how much `/v1/responses` keeps.
    """

    api_keys: tuple[str, ...] = ()
    api_key_file: Path | None = None
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 16 * 1024 * 1024
    drain_seconds: float = 30.0
    metrics_aliases: tuple[MetricsAlias, ...] = ()
    responses: StoreLimits = field(default_factory=StoreLimits)

    @property
    def locked(self) -> bool:
        """Clients have to show a key."""
        return bool(self.api_keys) or self.api_key_file is not None


@dataclass(frozen=True, slots=True)
class Services:
    """One for each server."""

    shelf: ModelShelf
    lifecycle: Lifecycle
    telemetry: Telemetry
    settings: ServerSettings
    responses: ResponseStore
    running_responses: RunningResponses

    async def model(self, request: Request, name: str) -> ServedModel:
        """The generating model of that name; raises as `take` does."""
        return await self.take(request, name, ServedModel)

    async def take(self, request: Request, name: str, kind: type[Kind]) -> Kind:
        """The model of that name, loaded, and kept so until the response is sent. The request's body was read before.

        Raises:
            ApiError: 404, no such model; 400, one of another kind; 429 and 503, it cannot be loaded now.
            ClientDisconnect: the client went away while it was loaded.
        """
        slot = self.shelf.find(name)
        record_of(request.scope).model = slot.name
        while slot.served is None:
            await until_disconnect(request, _load(slot))
        served = keep(request.scope, slot.lease())
        if not isinstance(served, kind):
            raise _wrong_model(name, served)
        return served

    async def encoder(self, request: Request, name: str, capability: Capability) -> ServedEncoder:
        """The encoder of that name, which can do this; raises as `take` does."""
        served = await self.take(request, name, ServedEncoder)
        if capability not in served.capabilities:
            raise _wrong_model(name, served)
        return served


def _wrong_model(name: str, served: Served) -> ApiError:
    message = f"The model `{name}` {_PURPOSES[served.summary.kind]}."
    return ApiError(400, message, code="wrong_model", param="model")


async def _load(slot: ModelSlot) -> None:
    try:
        await slot.load()
    except OverloadedError:
        raise
    except CupolaError as error:
        message = f"The model `{slot.name}` cannot be loaded now. {api_error(error).message}"
        raise unavailable(message, "model_unavailable", _RETRY_AFTER) from error
