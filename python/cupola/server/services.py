"""What an endpoint gets beside its request: the model, and the state of the server."""

from __future__ import annotations

from dataclasses import dataclass

from cupola.server.lifecycle import Lifecycle
from cupola.server.served_model import ServedModel
from cupola.server.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the operator may choose about the server.

    Args:
        api_keys: any of them opens the API; none means that no key is needed.
        max_body_bytes: largest request body.
        drain_seconds: how long a drain waits for the requests in flight.
    """

    api_keys: tuple[str, ...] = ()
    max_body_bytes: int = 16 * 1024 * 1024
    drain_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Services:
    """One for each server."""

    model: ServedModel
    lifecycle: Lifecycle
    telemetry: Telemetry
    settings: ServerSettings
