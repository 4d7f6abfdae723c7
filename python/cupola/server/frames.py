"""What the frames of both completion streams share: everything but the text is written once, before the first token."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json

from cupola.protocol.generation import Usage
from cupola.server.dialect import frame
from cupola.server.identity import Identity


class ChoiceFrames:
    """Frames of one stream, whose `object` field is `kind`; an endpoint adds what a choice looks like."""

    def __init__(self, kind: bytes, identity: Identity, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head = b'{"object":"' + kind + b'",' + identity.json_fields + b',"choices":['
        self._tail = b',"usage":null}' if include_usage else b"}"

    def usage(self, usage: Usage) -> bytes:
        """The last frame, which has no choice; nothing unless it was asked for."""
        if not self._include_usage:
            return b""
        return frame(self._head + b'],"usage":' + to_json(usage) + b"}")

    def with_choice(self, choice: bytes, extra: bytes = b"") -> bytes:
        """A frame of one choice; `extra` are further fields beside the choices, each after a comma."""
        return frame(self._head + choice + b"]" + extra + self._tail)


def ids_field(name: bytes, token_ids: Sequence[int]) -> bytes:
    """A further field of a frame or a choice."""
    return b',"' + name + b'":' + to_json(tuple(token_ids))
