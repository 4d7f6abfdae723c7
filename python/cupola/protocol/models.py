"""`/v1/models`: which models are served, and under which names."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from cupola.protocol.generation import ResponseModel

Capability = Literal[
    "chat",
    "classify",
    "completions",
    "embeddings",
    "images",
    "infill",
    "rerank",
    "structured_outputs",
    "thinking",
    "tools",
]


class ModelCard(ResponseModel):
    """One name under which a model answers.

    `max_model_len` is its context in tokens, `capabilities` what may be asked of it; both are known once it was loaded.
    A model that is not loaded is loaded by the next request for it. The fields from `type` on are those
    that Anthropic's clients look for.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "cupola"
    max_model_len: int | None
    capabilities: tuple[Capability, ...] | None
    state: Literal["unloaded", "loading", "loaded", "unloading"]
    type: Literal["model"] = "model"
    display_name: str
    created_at: datetime
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None
    max_tokens: int | None


class ModelList(ResponseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]
    has_more: Literal[False] = False
    first_id: str
    last_id: str
