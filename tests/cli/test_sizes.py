"""Amounts of memory on the command line."""

from __future__ import annotations

import pytest

from cupola.errors import UsageError
from cupola.sizes import parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("512MiB", 512 * 2**20), ("4g", 4 * 2**30), ("1.5 GB", 1_500_000_000), ("64kib", 65536)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--x") == size


@pytest.mark.parametrize("text", ["", "lots", "4 cows", "-1", "0", "1e9", "NaN"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--x"):
        parse_size(text, "--x")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (89_600_000, "90 MB"), (999_600_000, "1.0 GB"), (10**13, "10 TB")],
)
def test_how_sizes_are_shown(size: int, text: str) -> None:
    assert show_size(size) == text
