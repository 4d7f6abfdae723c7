"""What the selected tests of a module need, made for them ahead, in the order of their use.

So one test alone waits for one compilation, and all together keep every processor busy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest


def selected(request: pytest.FixtureRequest, parameter: str) -> list[str]:
    """The values of a parameter in those tests of the module that will run, each once, in order."""
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    return list(dict.fromkeys(str(call.params[parameter]) for call in calls if call and parameter in call.params))


@contextmanager
def made_ahead(names: list[str], make: Callable[[str], Path]) -> Iterator[Mapping[str, Future[Path]]]:
    """The folder that `make` gives for each name, as many at a time as there are processors."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield {name: pool.submit(make, name) for name in names}
    finally:
        pool.shutdown(cancel_futures=True)
