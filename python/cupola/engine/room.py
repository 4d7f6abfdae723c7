"""How much memory a device has for a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceRoom:
    """Memory of a device other than the processor, before a model is loaded.

    Args:
        available: bytes that are free; None: its driver does not say.
        largest: most bytes of one tensor; None: any.
    """

    available: int | None
    largest: int | None
