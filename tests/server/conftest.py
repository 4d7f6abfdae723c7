"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from stand import Stand, open_stand


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    """A server on the scripted backend, without any option."""
    async with open_stand() as opened:
        yield opened
