"""Fixtures that every test may use: the real model, fetched and compiled through the product.

Both steps go through the ordinary cache under its lock, so that parallel workers and later runs share the result, and a
change of the compiler compiles anew.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from compiled import compiled_folder
from cupola.weights.source import open_checkpoint

MODEL = "smollm2"

# The same examples in every run; `--hypothesis-profile explore` looks for others.
UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **UNHURRIED)
settings.register_profile("explore", **UNHURRIED)
settings.load_profile("same")

# What tests talk to is on this machine, and no proxy's business.
for name in ("NO_PROXY", "no_proxy"):
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost")))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start jobs in the background so, and every process that a test starts would be as deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct."""
    return open_checkpoint(MODEL).path


@pytest.fixture(scope="session")
def compiled_smollm2() -> Path:
    """The default model compiled as a user gets it: the Q4_1 file's own integers."""
    return compiled_folder(MODEL)


@pytest.fixture(scope="session")
def compiled_smollm2_f32() -> Path:
    """The default model dequantized to float32."""
    return compiled_folder(MODEL, "f32")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> object:
    """In CI nothing is missing by accident: a skipped test of the page, the model or a GPU is a failure there."""
    report = yield
    marked = any(any(item.iter_markers(name)) for name in ("browser", "model", "gpu"))
    if report.skipped and os.environ.get("CI") and marked:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
