"""Fixtures of the weights' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupola.weights.source import open_checkpoint


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file of the default model, fetched once and then cached."""
    return open_checkpoint("smollm2").path
