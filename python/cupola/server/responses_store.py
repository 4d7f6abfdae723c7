"""The responses that can be asked for again, and gone on from: in memory, for a while, within bounds.

An entry is the JSON of a response and of its own input; what was said before is that of the responses before it, which
stay in memory for as long as a later one needs them, even when they themselves cannot be found any more. An entry that
was not used for `seconds` is gone, and the least recently used goes first where a bound is reached. Entries belong to
their owner, the holder of an API key; others cannot see them. Belongs to one event loop; knows no HTTP.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter

from cupola.protocol.responses_items import Item, OutputItem
from cupola.protocol.responses_object import ResponseObject

_ITEMS = TypeAdapter(tuple[Annotated[Item, Field(discriminator="type")], ...])
_OVERHEAD = 1024  # bytes of an entry beside its JSON, roughly
_ITEM_OVERHEAD = 256  # the same for each item that can be referred to

Key = tuple[str, str]
"""(owner, id of a response or of an item)"""


class _Output(BaseModel):
    """Of a response's JSON, what a later one has to read; the rest is passed over."""

    output: tuple[Annotated[OutputItem, Field(discriminator="type")], ...]


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much is kept.

    Args:
        seconds: how long after its last use.
        entries: most responses.
        bytes: most memory, roughly; a response that alone is larger is not kept.
    """

    seconds: float = 24 * 3600.0
    entries: int = 10_000
    bytes: int = 64 * 1024 * 1024


class StoredResponse:
    """One entry; `parent` is the response before it. `held`: its memory is counted; `children` are those that are."""

    __slots__ = ("_input", "children", "held", "item_ids", "key", "parent", "payload", "status", "used")

    def __init__(
        self, owner: str, response: ResponseObject, items: tuple[Item, ...], parent: StoredResponse | None
    ) -> None:
        self.key: Key = (owner, response.id)
        self.status = response.status
        self.payload = response.model_dump_json().encode()
        self.item_ids = tuple(item.id for item in (*items, *response.output) if item.id is not None)
        self.used = 0.0
        self.held = False
        self.children = 0
        self.parent = parent
        self._input = _ITEMS.dump_json(items)

    @property
    def size(self) -> int:
        """Bytes of memory, roughly."""
        return len(self.payload) + len(self._input) + _OVERHEAD + _ITEM_OVERHEAD * len(self.item_ids)

    @property
    def input(self) -> tuple[Item, ...]:
        """Its own input."""
        return _ITEMS.validate_json(self._input)

    @property
    def output(self) -> tuple[OutputItem, ...]:
        """What the model answered."""
        return _Output.model_validate_json(self.payload).output

    @property
    def history(self) -> tuple[Item, ...]:
        """Everything that was said before its output."""
        return (() if self.parent is None else self.parent.context) + self.input

    @property
    def context(self) -> tuple[Item, ...]:
        """Everything that was said, its output included."""
        links = reversed(list(_chain(self)))
        return tuple(item for link in links for item in (*link.input, *link.output))


class ResponseStore:
    """All of one server.

    Args:
        limits: how much is kept.
        clock: seconds; for tests.
    """

    def __init__(self, limits: StoreLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or StoreLimits()
        self._clock = clock
        self._entries: OrderedDict[Key, StoredResponse] = OrderedDict()  # least recently used first
        self._by_item: dict[Key, StoredResponse] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(
        self, owner: str, response: ResponseObject, items: tuple[Item, ...], parent: StoredResponse | None = None
    ) -> None:
        """Keeps a response.

        Args:
            items: its own input, each with an id.
            parent: the response that it went on from.
        """
        entry = StoredResponse(owner, response, items, parent)
        if entry.size > self._limits.bytes:
            return
        self._entries[entry.key] = entry
        self._by_item.update({(owner, item_id): entry for item_id in entry.item_ids})
        self._hold(entry)
        self._use(entry)
        self._make_room()

    def find(self, owner: str, response_id: str) -> StoredResponse | None:
        """The entry of that id, if its owner asks."""
        self._make_room()
        entry = self._entries.get((owner, response_id))
        if entry is not None:
            self._use(entry)
        return entry

    def find_item(self, owner: str, item_id: str) -> Item | None:
        """An item of any response that can be found, its owner's."""
        self._make_room()
        entry = self._by_item.get((owner, item_id))
        if entry is None:
            return None
        return next(item for item in (*entry.output, *entry.input) if item.id == item_id)

    def delete(self, owner: str, response_id: str) -> bool:
        """Forgets a response; False if there is none."""
        self._make_room()
        entry = self._entries.get((owner, response_id))
        if entry is not None:
            self._forget(entry)
        return entry is not None

    def _hold(self, entry: StoredResponse) -> None:
        """Counts its memory, and that of what it goes on from, where that was given up meanwhile."""
        for link in _chain(entry):
            if link.held:
                return
            link.held = True
            self.bytes += link.size
            if link.parent is not None:
                link.parent.children += 1

    def _use(self, entry: StoredResponse) -> None:
        """It was used now, and what it goes on from with it."""
        for link in reversed(list(_chain(entry))):
            if link.key in self._entries:
                link.used = self._clock()
                self._entries.move_to_end(link.key)

    def _make_room(self) -> None:
        oldest = self._clock() - self._limits.seconds
        while self._entries:
            entry = next(iter(self._entries.values()))
            if entry.used > oldest and self.bytes <= self._limits.bytes and len(self._entries) <= self._limits.entries:
                return
            self._forget(entry)

    def _forget(self, entry: StoredResponse) -> None:
        """It cannot be found any more; its memory is free once nothing goes on from it."""
        del self._entries[entry.key]
        owner = entry.key[0]
        for item_id in entry.item_ids:
            if self._by_item.get((owner, item_id)) is entry:
                del self._by_item[owner, item_id]
        for link in _chain(entry):
            if link.children > 0 or link.key in self._entries:
                return
            link.held = False
            self.bytes -= link.size
            if link.parent is not None:
                link.parent.children -= 1


def _chain(entry: StoredResponse) -> Iterator[StoredResponse]:
    """The entry, and all that it goes on from, the latest first."""
    link: StoredResponse | None = entry
    while link is not None:
        yield link
        link = link.parent
