"""The versions that `make` installs: nothing that Cupola, its build or its tests need is left to the newest release."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
OURS = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
OURS += [text for extra in EXTRAS.values() for text in extra]


def pins(file: Path) -> dict[str, str]:
    """Names and versions of a file of constraints; every line has to have both."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    matches = [re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.+]+)", line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if match is None]
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


def needed(requirements: Iterable[str], seen: set[tuple[str, str]]) -> Iterator[Requirement]:
    """These, and what the installed packages of these names need on this machine, and so on."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from closure(requirement, seen)


def closure(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[Requirement]:
    yield requirement
    try:
        found = [Requirement(text) for text in requires(requirement.name) or ()]
    except PackageNotFoundError:
        return
    for extra in ("", *requirement.extras):
        if (key := (canonicalize_name(requirement.name), extra)) in seen:
            continue
        seen.add(key)
        for inner in found:
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                yield from closure(inner, seen)


def test_all_that_is_installed_has_a_version() -> None:
    pinned = pins(ROOT / "scripts" / "constraints.txt")
    found = list(needed(OURS, set()))
    assert len({requirement.name for requirement in found}) > 80, "the closure was not followed"
    assert sorted({one.name for one in found if canonicalize_name(one.name) not in pinned}) == []
    for requirement in found:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)], prereleases=True), (
            requirement
        )


@pytest.mark.parametrize(
    "file", ["goldens/constraints.txt", "goldens/requirements.txt", "conformance/requirements.txt",
             "conformance/requirements-openai2.txt", "models.txt"],
)  # fmt: skip
def test_the_other_environments_are_pinned_too(file: str) -> None:
    assert pins(ROOT / "scripts" / file)
