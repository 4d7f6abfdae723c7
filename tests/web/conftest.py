"""A headless browser, and servers for it to look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from serving import ServerProcess

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1100,850",
)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for all tests of the page."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium or chromedriver is missing: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver)) as browser:
        yield browser


@pytest.fixture(scope="session")
def chat_server() -> Iterator[ServerProcess]:
    """Answers end by themselves after a while, and take long enough to be watched."""
    name = "a-model-with-a-rather-long-name-that-has-to-be-cut"
    with ServerProcess("scripted:eos_every=80,step_us=4000", "--served-model-name", name) as server:
        yield server


@pytest.fixture(scope="session")
def endless_server() -> Iterator[ServerProcess]:
    """Answers go on until somebody stops them."""
    with ServerProcess("scripted:step_us=10000") as server:
        yield server


@pytest.fixture(scope="session")
def locked_server() -> Iterator[ServerProcess]:
    """Asks for the API key `secret`."""
    with ServerProcess("scripted:eos_every=20", "--api-key", "secret") as server:
        # The fixture's own client needs no key for the two paths that it asks.
        yield server
