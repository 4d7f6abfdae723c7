"""When a step is called, recorded and replayed, and how many recordings are kept; with a recorder that only counts."""

from __future__ import annotations

import pytest
import tvm_ffi

from cupola.engine.native_library import native

CALLED, RECORDED, REPLAYED = 0, 1, 2
DROP = -1
NEVER = 0


def run_steps(keys: list[int], most: int = 4, fail_at: int = NEVER) -> tuple[list[int], list[int]]:
    """(what happened to each step, recordings alive after it)."""
    happened = [int(i) for i in native("testing.run_steps")(most, fail_at, tvm_ffi.Shape(keys))]
    return happened[::2], happened[1::2]


def test_a_step_is_called_then_recorded_then_replayed() -> None:
    assert run_steps([1, 1, 1, 1]) == ([CALLED, RECORDED, REPLAYED, REPLAYED], [0, 1, 1, 1])


def test_each_key_has_a_recording_of_its_own() -> None:
    assert run_steps([1, 2, 1, 2, 1, 2])[0] == [CALLED, CALLED, RECORDED, RECORDED, REPLAYED, REPLAYED]


def test_the_one_that_was_not_needed_for_longest_goes_first() -> None:
    keys = [1, 1, 2, 2, 1, 3, 1, 2]
    assert run_steps(keys, most=2) == (
        [CALLED, RECORDED, CALLED, RECORDED, REPLAYED, CALLED, REPLAYED, CALLED],
        [0, 1, 1, 2, 2, 1, 1, 1],
    )


def test_keys_that_never_come_again_do_not_drive_out_one_that_does() -> None:
    happened, _ = run_steps([0, 0, *[key for i in range(1, 20) for key in (i, 0)]], most=2)
    assert happened[1::2] == [RECORDED, *[REPLAYED] * 19]


def test_what_is_dropped_is_gone() -> None:
    happened, alive = run_steps([1, 1, 2, 2, DROP, 1, 1])
    assert alive[4] == 0
    assert happened[5:] == [CALLED, RECORDED]


def test_after_a_failure_steps_are_called_and_recordings_stay(capfd: pytest.CaptureFixture[str]) -> None:
    happened, alive = run_steps([1, 1, 2, 2, 2, 1], fail_at=2)
    assert happened == [CALLED, RECORDED, CALLED, CALLED, CALLED, REPLAYED]
    assert alive[-1] == 1
    assert capfd.readouterr().err == "cupola: the device's steps are not recorded any more: this one fails\n"
