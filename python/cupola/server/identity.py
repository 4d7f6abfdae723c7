"""The fields by which a response, and every frame of a stream, says whose it is."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from pydantic_core import to_json


@dataclass(frozen=True, slots=True)
class Identity:
    """Id, creation time (Unix seconds) and model name of one response."""

    id: str
    created: int
    model: str

    @classmethod
    def new(cls, prefix: str, model: str) -> Identity:
        """A fresh one, `prefix-` and 32 hexadecimal digits."""
        return cls(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), model)

    @property
    def json_fields(self) -> bytes:
        """`"id":...,"created":...,"model":...` without braces."""
        return to_json({"id": self.id, "created": self.created, "model": self.model})[1:-1]
