"""The clients' tests run in environments of their own, against a server that `make conformance` has started.

They know the server by its address alone; nothing of Cupola can be imported here.
"""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def url() -> str:
    """Where the server with the default model is; it calls the model `model`."""
    return os.environ["CUPOLA_URL"]


@pytest.fixture(scope="session")
def base_url(url: str) -> str:
    """The base that clients of OpenAI want."""
    return f"{url}/v1"
