"""Compiles the interpreter of PTX with the system's C++ compiler, once for its sources and for this processor."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "build" / "ptx"
SOURCES = tuple(sorted(HERE.glob("*.cc")))
# Registers are looked at as numbers of several kinds, and every operation rounds by itself.
OPTIONS = ("-std=c++17", "-O2", "-march=native", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-pthread")
VECTORS = ("-ftree-vectorize", "-fvect-cost-model=dynamic")


def compiler() -> str:
    return os.environ.get("CXX") or shutil.which("g++") or "c++"


@cache
def library() -> Path:
    """The interpreter as a shared library."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"libptx-{_key()}.so"
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one compiles, and the others wait
        if not path.exists():
            _compile(path)
    return path


def _key() -> str:
    """Of all that decides what the compiler makes."""
    key = hashlib.sha256(repr((compiler(), OPTIONS, VECTORS)).encode())
    for file in sorted((*HERE.glob("*.h"), *SOURCES)):
        key.update(file.read_bytes())
    processor = Path("/proc/cpuinfo")
    if processor.exists():
        key.update("".join(sorted({x for x in processor.read_text().splitlines() if x.startswith("flags")})).encode())
    return key.hexdigest()[:16]


def _compile(path: Path) -> None:
    """Half a minute of one processor. A file that is there is whole."""
    objects = [path.with_name(f"{source.stem}-{os.getpid()}.o") for source in SOURCES]
    commands = [
        [compiler(), *OPTIONS, *VECTORS, "-c", str(source), "-o", str(to)]
        for source, to in zip(SOURCES, objects, strict=True)
    ]
    unfinished = path.with_suffix(f".{os.getpid()}.so")
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        _run([compiler(), "-shared", "-pthread", "-o", str(unfinished), *map(str, objects)])
        unfinished.replace(path)
    finally:
        for file in objects:
            file.unlink(missing_ok=True)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
