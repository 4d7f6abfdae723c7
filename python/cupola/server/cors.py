"""Which web pages elsewhere may talk to this server: none, unless the operator names them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from cupola.errors import UsageError

_ORIGIN = re.compile(r"\*|https?://[^\s/?#]+")


def cors_layer(origins: Sequence[str]) -> Middleware:
    """Allows pages of these origins (`https://host[:port]`, or `*`) to use the API; never with cookies.

    Raises:
        UsageError: not an origin.
    """
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"`--cors-origin` is `{origin}`, which is not an origin.",
                hint="write https://host, with a port if it has one and without a path; or *",
            )
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after"],
        max_age=600,
    )
