"""The architectures that Cupola compiles."""

from __future__ import annotations

from collections.abc import Mapping

from cupola.errors import UnsupportedError
from cupola.manifest import Task
from cupola.models.bert import BERT, ROBERTA
from cupola.models.config import Config
from cupola.models.encoder_spec import EncoderSpec
from cupola.models.llama import LLAMA
from cupola.models.spec import Architecture, DecoderSpec

ARCHITECTURES: tuple[Architecture, ...] = (LLAMA, BERT, ROBERTA)


def find(model_type: str) -> Architecture:
    """The architecture of a checkpoint's `model_type`.

    Raises:
        UnsupportedError: there is none; the hint lists those that there are.
    """
    for architecture in ARCHITECTURES:
        if model_type in architecture.model_types:
            return architecture
    known = ", ".join(sorted(t for a in ARCHITECTURES for t in a.model_types))
    raise UnsupportedError(f"architecture `{model_type}` is not supported", hint=f"supported architectures: {known}")


def task(values: Mapping[str, object]) -> Task:
    """What a checkpoint is for. Raises as `read` does."""
    return find(Config(values).text("model_type")).task


def read(values: Mapping[str, object]) -> tuple[Architecture, DecoderSpec | EncoderSpec]:
    """Architecture and sizes of a checkpoint from its configuration.

    Raises:
        UnsupportedError: unknown architecture, or sizes that no kernel can compute with.
        ModelError: a key is missing or of the wrong type.
    """
    config = Config(values)
    architecture = find(config.text("model_type"))
    spec = architecture.read(config)
    spec.check()
    return architecture, spec
