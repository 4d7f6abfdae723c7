"""What `/health` and `/ready` say while all is well."""

from __future__ import annotations

from typing import Literal

from cupola.protocol.generation import ResponseModel


class Status(ResponseModel):
    """One word."""

    status: Literal["ok", "ready"]
