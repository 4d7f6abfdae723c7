"""Layers that see only a window of the context: they have few pages, and what is found in the cache is still right.

The scripted model reads the end of every history through the window's pages, so that a place that was given to another
page too early gives a wrong token. `test_storms.py` does the same at random.
"""

from __future__ import annotations

from contextlib import closing

import pytest
from native_driver import greedy, run

from cupola.engine.native import NativeEngine, scripted
from cupola.engine.request import EngineConfig
from oracle import Oracle

WINDOW, PAGE, STEP = 20, 4, 32
ONE = (WINDOW - 1 + PAGE - 1) // PAGE + 2  # pages that one sequence uses at once
FEWEST = 2 * ONE + STEP // PAGE + 1  # for two, a step of prompts, and one to copy from


def engine(num_window_pages: int = FEWEST) -> NativeEngine:
    config = EngineConfig(
        num_pages=512,
        num_window_pages=num_window_pages,
        page_size=PAGE,
        max_batch=2,
        max_step_tokens=STEP,
        max_context=1024,
    )
    return NativeEngine(scripted(page_size=PAGE, window=WINDOW), config, check_every_step=True)


def prompt(seed: int, length: int) -> list[int]:
    return [(7 * i * seed + seed) % 256 for i in range(length)]


def hits(found: NativeEngine) -> int:
    return found.stats().prefix_hits


def test_texts_far_longer_than_the_window() -> None:
    with closing(engine()) as found:
        results = run(found, [greedy(i, prompt(i, 150), 300) for i in range(1, 5)])
    assert {i: result.tokens for i, result in results.items()} == {
        i: Oracle().generate(prompt(i, 150), 300)[0] for i in range(1, 5)
    }


def test_a_prefix_is_found_while_what_is_seen_of_it_is_there() -> None:
    expected = Oracle().generate(prompt(1, 100), 8)[0]
    with closing(engine()) as found:
        assert run(found, [greedy(1, prompt(1, 100), 8)])[1].tokens == expected
        assert run(found, [greedy(2, prompt(1, 100), 8)])[2].tokens == expected
        assert hits(found) == 99  # the end of its last page is copied


def test_a_prefix_whose_window_has_gone_is_computed_again() -> None:
    expected = Oracle().generate(prompt(1, 100), 8)[0]
    with closing(engine()) as found:
        run(found, [greedy(1, prompt(1, 100), 8)])
        run(found, [greedy(2, prompt(2, 100), 8)])  # takes the places over
        before = hits(found)
        assert run(found, [greedy(3, prompt(1, 100), 8)])[3].tokens == expected
        assert hits(found) == before
        assert found.stats().pages_cached > 40  # the other layers still have it


def test_more_places_keep_more_prefixes() -> None:
    with closing(engine(4 * FEWEST)) as found:
        for i in range(1, 4):
            run(found, [greedy(i, prompt(i, 100), 8)])
        before = hits(found)
        for i in range(1, 4):
            run(found, [greedy(10 + i, prompt(i, 100), 8)])
        assert hits(found) == before + 3 * 99


def test_too_few_places_are_refused() -> None:
    with pytest.raises(Exception, match=f"{FEWEST - 1} places in the window, but those who run may use {FEWEST}"):
        engine(FEWEST - 1)
