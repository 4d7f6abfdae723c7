"""What the engine gives to its callers: text and token ids of one request, piece by piece or whole.

These are the upward types of `AsyncEngine` and `Engine`; the native ones are in `cupola.engine.request`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cupola.engine.request import FinishReason


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    `completion_tokens` counts every token that the model generated for it, the stop id included.
    """

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of one request's output.

    Args:
        text: new text; may be empty while a character or a possible stop string is incomplete.
        token_ids: new token ids. They may be ahead of `text`. A stop id is not among them.
        finish_reason: set on the last delta of a request, and only there.
        usage: set on the last delta, and only there.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The whole output of one request."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
