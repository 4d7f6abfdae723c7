"""What `make lm-eval` calls the same, and what it does not."""

from __future__ import annotations

import copy

from evaluation.compare import differences, largest_gap, table

RESULT = {
    "scores": {"choice": {"acc,none": 0.75}, "prose": {"byte_perplexity,none": 3.0}},
    "answers": {"choice": [[[[-1.5, False]], [[-0.5, True]]]], "prose": [[["text"]], [[-20.0]]]},
}


def changed(change: object, *path: object) -> list[str]:
    """The differences after one value of the result was replaced."""
    other = copy.deepcopy(RESULT)
    inner = other
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = change
    return list(differences(RESULT, other))


def test_what_is_the_same() -> None:
    assert list(differences(RESULT, RESULT)) == []
    assert changed(-1.5005, "answers", "choice", 0, 0, 0, 0) == []
    assert changed(3.001, "scores", "prose", "byte_perplexity,none") == []


def test_what_is_not() -> None:
    assert changed(0.7500001, "scores", "choice", "acc,none") == ["choice acc,none is 0.7500001, not 0.75"]
    assert changed(3.01, "scores", "prose", "byte_perplexity,none")
    assert changed(0, "answers", "choice", 0, 0, 0, 0) == ["choice [0][0][0][0] is 0, not -1.5"]
    assert changed("test", "answers", "prose", 0, 0, 0)
    assert changed(True, "answers", "choice", 0, 0, 0, 1)


def test_what_is_shown() -> None:
    other = copy.deepcopy(RESULT)
    other["answers"]["choice"][0][0][0][0] = -1.25
    assert largest_gap(RESULT["answers"], other["answers"]) == 0.25
    shown = table(RESULT["scores"], {"the server": RESULT["scores"]})
    assert [line.split() for line in shown.splitlines()][1] == ["choice", "acc", "0.750000", "0.750000"]
