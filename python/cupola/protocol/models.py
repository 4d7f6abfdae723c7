"""`/v1/models`: which models are served, and under which names."""

from __future__ import annotations

from typing import Literal

from cupola.protocol.generation import ResponseModel


class ModelCard(ResponseModel):
    """One name under which a model answers.

    `max_model_len` is its context in tokens, which is known once it was loaded. A model that is not loaded is loaded by
    the next request for it.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "cupola"
    max_model_len: int | None
    state: Literal["unloaded", "loading", "loaded", "unloading"]


class ModelList(ResponseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]
