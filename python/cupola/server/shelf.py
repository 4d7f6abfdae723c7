"""All models of one server, by name. Knows how to find one; how one comes and goes is its slot's. Knows no endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cupola.errors import UsageError
from cupola.protocol.errors import model_not_found
from cupola.server.slot import ModelSlot, Served


class ModelShelf:
    """Models of any kind, at least one.

    Raises:
        UsageError: two of them have the same name.
    """

    def __init__(self, slots: Sequence[ModelSlot]) -> None:
        self.slots = tuple(slots)
        self._check_names()

    @classmethod
    def holding(cls, *served: Served) -> ModelShelf:
        """Models that are open already, and stay so; closing them is the caller's."""
        return cls([ModelSlot.holding(one) for one in served])

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which a model answers."""
        return tuple(name for slot in self.slots for name in slot.names)

    def find(self, name: str) -> ModelSlot:
        """The model of that name, loaded or not.

        Raises:
            ApiError: 404, there is none.
        """
        slot = next((slot for slot in self.slots if name in slot.names), None)
        if slot is None:
            raise model_not_found(name, self.names)
        return slot

    def fault(self) -> str | None:
        """Why one of the loaded engines cannot work, or None while all can."""
        return next((fault for slot in self.slots if (fault := slot.fault()) is not None), None)

    def load_now(self) -> None:
        """Loads all of them in this thread, before there are any requests. Raises what opening one raises."""
        for slot in self.slots:
            slot.load_now()
        self._check_names()

    def start_timers(self) -> None:
        """Lets models that nobody asks for become idle; on the event loop, once."""
        for slot in self.slots:
            slot.start_timer()

    async def close(self) -> None:
        """Frees all of them."""
        for slot in self.slots:
            await slot.close()

    def _check_names(self) -> None:
        counts = Counter(self.names)
        for name, count in counts.items():
            if count > 1:
                raise UsageError(f"Two models have the name `{name}`.", hint="name them: NAME=MODEL")
