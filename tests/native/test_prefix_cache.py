"""The prefix cache alone: a radix tree of pages, checked in C++ after every operation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tvm_ffi
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cupola.engine.native_library import native

PAGE = 4


class PrefixCacheDouble:
    """A prefix cache and its pool."""

    def __init__(self, num_pages: int, page_size: int = PAGE) -> None:
        self._handle = native("testing.prefix_cache")(num_pages, page_size)

    def put(self, tokens: Sequence[int], seed: int = 0) -> list[int]:
        """Cache the whole pages of `tokens`, as long as there are free ones; the page of each."""
        return list(native("testing.prefix_put")(self._handle, seed, tvm_ffi.Shape(tuple(tokens))))

    def find(self, tokens: Sequence[int], seed: int = 0) -> tuple[list[int], int, int]:
        """The whole pages, the page that begins like the rest or -1, and for how many tokens it does."""
        found = list(native("testing.prefix_find")(self._handle, seed, tvm_ffi.Shape(tuple(tokens))))
        return found[2:], found[0], found[1]

    def hold(self, pages: Sequence[int]) -> None:
        native("testing.prefix_hold")(self._handle, tvm_ffi.Shape(tuple(pages)), 1)

    def release(self, pages: Sequence[int]) -> None:
        native("testing.prefix_hold")(self._handle, tvm_ffi.Shape(tuple(pages)), -1)

    def evict(self, count: int) -> tuple[int, int]:
        """Pages that are free, and that are cached and held by nobody, afterwards."""
        free, evictable = native("testing.prefix_evict")(self._handle, count)
        return free, evictable


def page(*, of: int) -> list[int]:
    return [of] * PAGE


def test_whole_pages_are_found_and_the_page_that_agrees_longest() -> None:
    cache = PrefixCacheDouble(16)
    first, second = cache.put([1, 2, 3, 4, 5, 6, 7, 8])
    (other,) = cache.put([5, 5, 5, 5])
    assert cache.find([1, 2, 3, 4, 5, 6, 7, 8, 9]) == ([first, second], -1, 0)
    assert cache.find([1, 2, 3, 4, 5, 6, 0, 0, 0]) == ([first], second, 2)
    assert cache.find([1, 2, 3]) == ([], first, 3)
    assert cache.find([5, 5, 5, 6]) == ([], other, 3)
    assert cache.find([5]) == ([], other, 1)
    assert cache.find([2, 2, 2, 2, 2]) == ([], -1, 0)
    assert cache.find([]) == ([], -1, 0)


def test_of_many_children_the_one_that_agrees_longest_is_taken() -> None:
    cache = PrefixCacheDouble(64)
    (root,) = cache.put(page(of=9))
    children = {}
    for i in range(0, 40, 2):
        children[i] = cache.put([*page(of=9), 7, i, i, i])[1]
    for i in range(1, 39, 2):  # between two children, and only the first token agrees
        pages, partial, common = cache.find([*page(of=9), 7, i, i, i])
        assert pages == [root]
        assert partial in children.values()
        assert common == 1
    assert cache.find([*page(of=9), 7, 10, 10, 11]) == ([root], children[10], 3)


def test_seeds_share_nothing() -> None:
    cache = PrefixCacheDouble(8)
    mine, yours = cache.put(page(of=1), seed=1), cache.put(page(of=1), seed=2)
    assert mine != yours
    assert cache.find(page(of=1), seed=1)[0] == mine
    assert cache.find(page(of=1), seed=3) == ([], -1, 0)


def test_what_is_put_twice_is_kept_once() -> None:
    cache = PrefixCacheDouble(8)
    assert cache.put(range(8)) == cache.put(range(8))
    assert cache.evict(0) == (6, 2)


def test_the_path_that_was_not_used_for_the_longest_time_goes_first_from_its_end() -> None:
    cache = PrefixCacheDouble(8)
    trunk = page(of=0)
    for leaf in (1, 2, 3):
        cache.put(trunk + page(of=leaf) + page(of=leaf))
    cache.find(trunk + page(of=1))  # in use again: now 2 is the oldest
    assert cache.evict(1) == (2, 6)
    assert [len(cache.find(trunk + page(of=leaf) * 2)[0]) for leaf in (3, 2, 1)] == [3, 2, 3]
    assert cache.evict(3) == (5, 3)  # all of 3, and what is left of 2
    assert [len(cache.find(trunk + page(of=leaf) * 2)[0]) for leaf in (3, 2, 1)] == [1, 1, 3]
    assert cache.evict(3) == (8, 0)
    assert cache.find(trunk)[0] == []


def test_held_pages_are_not_evicted_and_those_behind_them_are() -> None:
    cache = PrefixCacheDouble(8)
    pages = cache.put(range(16))
    cache.hold(pages[:2])
    assert cache.evict(2) == (6, 0)
    assert cache.find(range(16))[0] == pages[:2]
    with pytest.raises(RuntimeError, match="1 pages to be evicted of 0"):
        cache.evict(1)
    cache.release(pages[:2])
    assert cache.evict(2) == (8, 0)


class PrefixCacheMachine(RuleBasedStateMachine):
    """Random puts, holds and evictions, against a set of paths."""

    @initialize(num_pages=st.integers(1, 40), page_size=st.sampled_from([1, 2, 4]))
    def create(self, num_pages: int, page_size: int) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self.cache = PrefixCacheDouble(num_pages, page_size)
        self.known: dict[tuple[int, ...], int] = {}  # the page at the end of each cached path
        self.held: list[tuple[int, ...]] = []

    def paths(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        ends = range(self.page_size, len(tokens) + 1, self.page_size)
        return [tuple(tokens[:end]) for end in ends]

    @rule(tokens=st.lists(st.integers(0, 1), max_size=30))
    def put(self, tokens: list[int]) -> None:
        pages = self.cache.put(tokens)
        for path, page in zip(self.paths(tokens), pages, strict=False):
            assert self.known.setdefault(path, page) == page
        assert len(set(self.known.values())) == len(self.known) <= self.num_pages

    @rule(tokens=st.lists(st.integers(0, 1), max_size=30))
    def find(self, tokens: list[int]) -> None:
        pages, partial, common = self.cache.find(tokens)
        expected = [self.known[path] for path in self.paths(tokens) if path in self.known]
        assert pages == expected
        done = len(pages) * self.page_size
        # No cached page that stands behind these agrees with the rest for longer.
        behind = [
            path for path in self.known if len(path) == done + self.page_size and path[:done] == tuple(tokens[:done])
        ]
        agreement = {self.known[path]: common_length(path[done:], tokens[done:]) for path in behind}
        assert common == max(agreement.values(), default=0)
        assert common == 0 or agreement[partial] == common

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.known)))
        self.cache.hold([self.known[step] for step in self.paths(path)])
        self.held.append(path)

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        self.cache.release([self.known[step] for step in self.paths(self.held.pop(0))])

    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        kept = {step for path in self.held for step in self.paths(path)}
        count = data.draw(st.integers(0, len(self.known) - len(kept)))
        free = self.num_pages - len(self.known)
        assert self.cache.evict(count) == (free + count, len(self.known) - len(kept) - count)
        before = len(self.known)
        for path in sorted(self.known, key=len, reverse=True):
            if self.cache.find(path)[0] != [self.known[step] for step in self.paths(path) if step in self.known]:
                assert path not in kept
                del self.known[path]
        assert before - len(self.known) == count


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


TestPrefixCache = PrefixCacheMachine.TestCase
TestPrefixCache.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
