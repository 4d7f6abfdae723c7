"""Sizes that kernels can compute with."""

from __future__ import annotations

from collections.abc import Mapping

from cupola.errors import UnsupportedError


def check_multiples(sizes: Mapping[str, tuple[int, int]]) -> None:
    """Refuses a size that is 0 or not a multiple of what the kernels need.

    Args:
        sizes: name -> (the size, what it must be a multiple of).

    Raises:
        UnsupportedError: naming the first such size, what it is and what it must be.
    """
    for name, (value, multiple) in sizes.items():
        if value == 0 or value % multiple:
            raise UnsupportedError(f"{name} is {value}; Cupola's kernels need a multiple of {multiple}")
