"""What a document cannot say: the name under which the server under test has its model. Most requests get it."""

from __future__ import annotations

import zlib

import schemathesis


@schemathesis.hook
def map_body(_context: schemathesis.HookContext, body: object) -> object:
    """Replaces the name of the model, but not a value of another type, which tests just that."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return body
    return body | {"model": "scripted"} if zlib.crc32(repr(sorted(body, key=str)).encode()) % 4 else body
