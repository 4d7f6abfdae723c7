"""The bound of the cache of compiled models: who goes, who stays. The folders are files of a known size."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cupola.compiler import cache
from cupola.compiler.prune import GRACE_SECONDS, prune, size_limit, touch
from cupola.errors import UsageError
from cupola.in_use import hold

HOUR = 3600.0


class Owner:
    """Something that uses a folder."""


@contextmanager
def free(_: Path) -> Iterator[bool]:
    yield True


@contextmanager
def taken(_: Path) -> Iterator[bool]:
    yield False


def make(root: Path, name: str, size: int, hours_ago: float) -> Path:
    """A compiled folder of `size` bytes that was used so long ago."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "weights-00001.safetensors").write_bytes(b"x" * (size - 2))
    (folder / "model.json").write_text("{}")
    used = time.time() - hours_ago * HOUR
    os.utime(folder / "model.json", (used, used))
    return folder


def left(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_the_least_recently_used_go_until_the_rest_fits(tmp_path: Path) -> None:
    for name, hours in (("newest", 2), ("oldest", 9), ("middle", 5)):
        make(tmp_path, name, 100, hours)
    prune(tmp_path, 200, free)
    assert left(tmp_path) == {"newest", "middle"}
    prune(tmp_path, 200, free)
    assert left(tmp_path) == {"newest", "middle"}
    prune(tmp_path, 199, free)
    assert left(tmp_path) == {"newest"}


def test_a_use_makes_young(tmp_path: Path) -> None:
    touched, other = make(tmp_path, "touched", 100, 9), make(tmp_path, "other", 100, 5)
    touch(touched)
    prune(tmp_path, 100, free)
    assert touched.is_dir()
    assert not other.exists()


def test_what_was_just_used_stays_whatever_its_size(tmp_path: Path) -> None:
    make(tmp_path, "young", 1000, (GRACE_SECONDS - 60) / HOUR)
    make(tmp_path, "old", 10, (GRACE_SECONDS + 60) / HOUR)
    prune(tmp_path, 1, free)
    assert left(tmp_path) == {"young"}


def test_what_is_held_stays_until_its_holder_is_gone(tmp_path: Path) -> None:
    folder = make(tmp_path, "held", 100, 9)
    owner = Owner()
    hold(folder, owner)
    prune(tmp_path, 1, free)
    assert folder.is_dir()
    del owner
    prune(tmp_path, 1, free)
    assert not folder.exists()


def test_another_process_can_hold_and_its_death_lets_go(tmp_path: Path) -> None:
    folder = make(tmp_path, "held", 100, 9)
    program = (
        "import sys, pathlib; from cupola.in_use import hold\n"
        "class Owner: pass\n"
        "owner = Owner(); hold(pathlib.Path(sys.argv[1]), owner); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        prune(tmp_path, 1, free)
        assert folder.is_dir()
        process.kill()
    prune(tmp_path, 1, free)
    assert not folder.exists()


def test_what_is_being_looked_up_stays(tmp_path: Path) -> None:
    make(tmp_path, "locked", 100, 9)
    prune(tmp_path, 1, taken)
    assert left(tmp_path) == {"locked"}


def test_what_is_used_while_others_are_removed_stays(tmp_path: Path) -> None:
    @contextmanager
    def used_meanwhile(folder: Path) -> Iterator[bool]:
        touch(folder)
        yield True

    make(tmp_path, "used", 100, 9)
    prune(tmp_path, 1, used_meanwhile)
    assert left(tmp_path) == {"used"}


def test_the_lock_of_the_cache_is_respected_and_dots_are_part_of_a_name(tmp_path: Path) -> None:
    first, second = make(tmp_path, "llama-1.5b-q4-a", 100, 9), make(tmp_path, "llama-1.7b-q4-b", 100, 8)
    with cache._lock(first):
        prune(tmp_path, 1, cache.try_lock)
    assert first.is_dir()
    assert not second.exists()


def test_work_of_killed_compilers_goes(tmp_path: Path) -> None:
    for name, hours in ((".a-q4-x", 30), (".b-q4-y", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lib.so").write_bytes(b"half")
        used = time.time() - hours * HOUR
        os.utime(tmp_path / name, (used, used))
    prune(tmp_path, 10**9, free)
    assert left(tmp_path) == {".b-q4-y"}


def test_the_limit_is_the_users_or_a_part_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUPOLA_CACHE_SIZE", raising=False)
    assert size_limit(tmp_path) > 0
    monkeypatch.setenv("CUPOLA_CACHE_SIZE", "3GiB")
    assert size_limit(tmp_path) == 3 * 2**30
    monkeypatch.setenv("CUPOLA_CACHE_SIZE", "plenty")
    with pytest.raises(UsageError, match="CUPOLA_CACHE_SIZE"):
        size_limit(tmp_path)
