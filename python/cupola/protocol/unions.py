"""Unions of wire shapes that are told apart by a word, their `type`: how one is found, and others refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import BeforeValidator, Discriminator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import UNION_TAG, WireModel

KindOf = Callable[[Mapping[str, object]], str]


def type_of(value: Mapping[str, object]) -> str:
    """The word that tells the shape of a value."""
    return str(value.get("type"))


def tag_by(kind_of: KindOf = type_of) -> Discriminator:
    """Finds the shape of a value; the tag is marked, so that no error message shows it as a part of a path."""
    return Discriminator(lambda value: UNION_TAG + (kind_of(value) if isinstance(value, dict) else value.type))


def only_kinds(what: str, allowed: tuple[str, ...], kind_of: KindOf = type_of) -> BeforeValidator:
    """Refuses by its name a type that is not in the union; all else is the union's own to check."""
    *most, last = (f"`{kind}`" for kind in allowed)
    choice = f"{', '.join(most)} and {last}"

    def check(value: object) -> object:
        if not isinstance(value, dict):
            return value if isinstance(value, WireModel) else _no_object(what)
        if kind_of(value) not in allowed:
            message = f"{what} of type `{{kind}}` is not supported; only {choice} are"
            raise PydanticCustomError("unsupported_content", message, {"kind": kind_of(value)[:64]})
        return value

    return BeforeValidator(check)


def only_functions(data: object) -> object:
    """Refuses by its name a tool, or a choice of one, that is no function; all else is its model's to check."""
    kind = data.get("type") if isinstance(data, dict) else None
    if isinstance(kind, str) and kind != "function":
        raise PydanticCustomError(
            "unsupported_content", "tools of type `{kind}` are not supported; only `function` is", {"kind": kind[:64]}
        )
    return data


def _no_object(what: str) -> object:
    raise PydanticCustomError("object_type", f"{what} has to be an object")
