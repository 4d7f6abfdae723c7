"""The four forms of a prompt: a text, a list of texts, a list of token ids, a list of such lists."""

from __future__ import annotations

from pydantic_core import PydanticCustomError

from cupola.protocol.generation import TokenId

Prompt = str | tuple[TokenId, ...]


def as_prompts(value: object) -> object:
    """Brings the four forms into one, a list of prompts; for a `BeforeValidator`."""
    prompts = [value] if isinstance(value, str) or _are_ids(value) else value
    if not isinstance(prompts, list) or not all(isinstance(item, str) or _are_ids(item) for item in prompts):
        raise PydanticCustomError(
            "prompt_type", "must be a string, a list of strings, a list of token ids or a list of such lists"
        )
    return prompts


def _are_ids(value: object) -> bool:
    """Whether this is one prompt as token ids (an empty list is none)."""
    return isinstance(value, list) and bool(value) and all(type(item) is int and 0 <= item < 2**31 for item in value)
