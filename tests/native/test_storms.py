"""A thousand lives of a scheduler whose pool is five times too small for what is asked of it.

In C++ (cpp/ffi/testing_pages_ffi.cc): random sizes and policies, priorities, shared and pinned prefixes, aborts and
failures, on a model with a real store of tokens. Every token is compared with the unloaded greedy answer, every page is
accounted for after every step, and every request must end.
"""

from __future__ import annotations

from cupola.engine.native_library import native

SEEDS = 1000


def test_every_request_of_every_storm_ends_with_the_unloaded_answer() -> None:
    finished, preemptions, hits, evicted = native("testing.storms")(0, SEEDS)
    assert finished > 5 * SEEDS
    assert preemptions > 100
    assert hits > 10 * SEEDS
    assert evicted > 10 * SEEDS
