"""From what the operator asked for to a model on the shelf: its names, and how it is opened. Knows engines, no HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.folder import is_compiled_folder, read_manifest
from cupola.engine.options import EngineOptions
from cupola.errors import UsageError
from cupola.server.served_encoder import ServedEncoder
from cupola.server.served_model import ServedModel
from cupola.server.slot import Served

_NAMED = re.compile(r"([\w.-]+(?:/[\w.-]+)*)=(.+)")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that shall be served.

    Args:
        model: whatever `cupola serve` takes.
        names: under which it answers; empty: under those that it has by itself.
    """

    model: str
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> ModelSource:
        """`MODEL`, or `NAME=MODEL`; what exists as a path is never split."""
        named = None if Path(text).exists() else _NAMED.fullmatch(text)
        return cls(text) if named is None else cls(named[2], (named[1],))

    def early_names(self) -> tuple[str, ...]:
        """The names that are known before the model is opened."""
        if self.names:
            return self.names
        path = Path(self.model)
        if is_compiled_folder(path):
            return (read_manifest(path).name,)
        return (path.resolve().name.removesuffix(".gguf") if path.exists() else self.model,)


def model_sources(models: Sequence[str], served_names: Sequence[str]) -> tuple[ModelSource, ...]:
    """The models of one server and their names.

    Raises:
        UsageError: `served_names` can only be for a single model.
    """
    sources = tuple(ModelSource.parse(model) for model in models)
    if not served_names:
        return sources
    if len(sources) > 1:
        raise UsageError("`--served-model-name` names one model, but there are several", hint="write NAME=MODEL")
    return (replace(sources[0], names=(*sources[0].names, *served_names)),)


def open_served(source: ModelSource, backend: str, options: EngineOptions, reply_format: str | None = None) -> Served:
    """Opens a model; blocks. By itself it has the name that was typed, unless that is a path, and its own."""
    engine = AsyncEngine(source.model, backend=backend, config=options)
    names = source.names or tuple(dict.fromkeys((*source.early_names(), engine.model_name)))
    if engine.manifest.task != "generate":
        return ServedEncoder.of(engine, names)
    return ServedModel.of(engine, names, reply_format)
