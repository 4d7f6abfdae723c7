"""The store of responses: what is found, what is forgotten, and that its count of memory is right."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from cupola.protocol.generation import Usage
from cupola.protocol.responses import ResponseRequest
from cupola.protocol.responses_items import Item, MessageItem, OutputText, with_id
from cupola.protocol.responses_object import ResponseObject
from cupola.server.responses_store import ResponseStore, StoreLimits


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def said(role: str, text: str) -> Item:
    """A message with an id."""
    return with_id(MessageItem.model_validate({"role": role, "content": text}))


def response(answer: str) -> ResponseObject:
    """A response that has answered this."""
    begun = ResponseObject.begun(ResponseRequest.model_validate({"model": "m", "input": "x"}), "m", 1.0, 1.0)
    message = MessageItem(role="assistant", content=(OutputText(text=answer),))
    return begun.ended("completed", (with_id(message),), Usage.of(1, 1, 0))


def texts(items: tuple[Item, ...]) -> list[str]:
    """What messages say."""
    return [part.text for item in items for part in item.content]


def talk(store: ResponseStore, *words: str, owner: str = "me") -> list[str]:
    """A chain of responses; their ids."""
    ids: list[str] = []
    parent = None
    for word in words:
        answer = response(f"re: {word}")
        store.put(owner, answer, (said("user", word),), parent)
        parent = store.find(owner, answer.id)
        ids.append(answer.id)
    return ids


def test_a_chain_knows_all_that_was_said() -> None:
    store = ResponseStore()
    first, second, third = talk(store, "a", "b", "c")
    entry = store.find("me", third)
    assert entry is not None
    assert texts(entry.context) == ["a", "re: a", "b", "re: b", "c", "re: c"]
    assert texts(entry.history) == ["a", "re: a", "b", "re: b", "c"]
    assert (entry.status, json.loads(entry.payload)["id"]) == ("completed", third)
    assert [len(store), store.find("me", first) is not None, store.find("me", second) is not None] == [3, True, True]


def test_nobody_sees_what_is_anothers() -> None:
    store = ResponseStore()
    [mine] = talk(store, "secret")
    entry = store.find("me", mine)
    assert entry is not None
    assert store.find("you", mine) is None
    assert store.find_item("you", entry.item_ids[0]) is None
    assert not store.delete("you", mine)
    assert store.find_item("me", entry.item_ids[0]) == entry.input[0]
    assert store.find_item("me", entry.item_ids[1]) == entry.output[0]


def test_what_is_not_used_for_long_is_gone() -> None:
    clock = Clock()
    store = ResponseStore(StoreLimits(seconds=60), clock)
    first, second = talk(store, "a", "b")
    [other] = talk(store, "c")
    clock.now += 59
    assert store.find("me", second) is not None, "which keeps what it goes on from, too"
    clock.now += 2
    assert store.find("me", other) is None
    assert store.find("me", first) is not None
    clock.now += 61
    assert store.find("me", first) is store.find("me", second) is None
    assert (len(store), store.bytes) == (0, 0)


def test_a_deleted_response_is_still_known_to_what_went_on_from_it() -> None:
    store = ResponseStore()
    first, second = talk(store, "a", "b")
    entry = store.find("me", first)
    assert entry is not None
    assert store.delete("me", first)
    assert not store.delete("me", first)
    assert store.find("me", first) is None
    assert store.find_item("me", entry.item_ids[0]) is None
    child = store.find("me", second)
    assert child is not None
    assert texts(child.context) == ["a", "re: a", "b", "re: b"]
    assert store.bytes == entry.size + child.size
    assert store.delete("me", second)
    assert store.bytes == 0


def test_a_parent_that_is_forgotten_meanwhile_is_counted_again() -> None:
    store = ResponseStore()
    [first] = talk(store, "a")
    parent = store.find("me", first)
    assert parent is not None
    store.delete("me", first)
    assert store.bytes == 0
    answer = response("late")
    store.put("me", answer, (said("user", "b"),), parent)
    entry = store.find("me", answer.id)
    assert entry is not None
    assert store.bytes == parent.size + entry.size
    store.delete("me", answer.id)
    assert store.bytes == 0


def test_the_least_recently_used_makes_room() -> None:
    store = ResponseStore(StoreLimits(entries=2))
    [first], [second] = talk(store, "a"), talk(store, "b")
    store.find("me", first)
    [third] = talk(store, "c")
    assert store.find("me", second) is None
    assert store.find("me", first) is not None
    assert store.find("me", third) is not None


def test_what_alone_is_too_large_is_not_kept() -> None:
    store = ResponseStore(StoreLimits(bytes=10_000))
    [small] = talk(store, "a")
    store.put("me", response("x" * 10_000), (said("user", "b"),))
    assert store.find("me", small) is not None
    assert len(store) == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "chain", "find", "delete", "wait"]), st.integers(0, 5), st.integers(0, 800)),
    max_size=40,
)


@given(STEPS, st.integers(4000, 20_000), st.integers(1, 6))
def test_memory_stays_within_its_bounds_and_is_counted_right(
    steps: list[tuple[str, int, int]], size: int, entries: int
) -> None:
    clock = Clock()
    store = ResponseStore(StoreLimits(seconds=100, entries=entries, bytes=size), clock)
    ids: list[str] = []
    for action, which, amount in steps:
        known = ids[which % len(ids)] if ids else "none"
        if action in ("put", "chain"):
            answer = response("y" * amount)
            store.put("me", answer, (said("user", "x"),), store.find("me", known) if action == "chain" else None)
            ids.append(answer.id)
        elif action == "find":
            store.find("me", known)
        elif action == "delete":
            store.delete("me", known)
        else:
            clock.now += amount / 4
        assert store.bytes <= size
        assert len(store) <= entries
        assert store.bytes == sum(entry.size for entry in _reachable(store, ids))
    for known in ids:
        store.delete("me", known)
    assert (store.bytes, len(store)) == (0, 0)


def _reachable(store: ResponseStore, ids: list[str]) -> set[object]:
    """Every entry that can be found or is needed by one; looks without using."""
    found: set[object] = set()
    for known in ids:
        entry = store._entries.get(("me", known))
        while entry is not None and entry not in found:
            found.add(entry)
            entry = entry.parent
    return found
