"""Typed access to a checkpoint's configuration, with errors that name the key."""

from __future__ import annotations

from collections.abc import Mapping

from cupola.errors import ModelError


class Config:
    """The keys of a Hugging Face config.json.

    Every getter raises ModelError when the key is missing (and no default is given) or of another type.

    Args:
        served: tokens that the model will be asked to see at most; 0: as many as it can.
    """

    def __init__(self, values: Mapping[str, object], where: str = "config.json", served: int = 0) -> None:
        self._values = values
        self._where = where
        self.served = served

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(key, value, "a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, value, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        value = self._get(key, None)
        if not isinstance(value, list) or not all(isinstance(v, (int, float)) for v in value):
            raise self._wrong(key, value, "a list of numbers")
        return tuple(float(v) for v in value)

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings; None when the key is missing or null."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self._wrong(key, value, "a list of strings")
        return tuple(value)

    def strings(self, key: str) -> Mapping[str, str]:
        """An object whose values are strings; empty when the key is missing or null."""
        value = self._values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
            raise self._wrong(key, value, "an object of strings")
        return value

    def is_text(self, key: str) -> bool:
        """The key is there, and a string."""
        return isinstance(self._values.get(key), str)

    def has(self, key: str) -> bool:
        """The key is there, and not null."""
        return self._values.get(key) is not None

    def table(self, key: str) -> Config | None:
        """A nested object; None when the key is missing or null."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "an object")
        return Config(value, f"{self._where}: {key}")

    def _get(self, key: str, default: object) -> object:
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ModelError(f"{self._where} has no `{key}`", hint="the checkpoint may be incomplete; fetch it again")
        return value

    def _wrong(self, key: str, value: object, allowed: str) -> ModelError:
        return ModelError(f"{self._where}: `{key}` is {value!r}; it must be {allowed}")
