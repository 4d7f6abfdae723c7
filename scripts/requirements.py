"""Prints requirements out of pyproject.toml, one a line, for `pip install -r`.

    python scripts/requirements.py build test dev

`build` is what the build backend needs (and cmake and ninja, which it would fetch by itself only into an isolated
environment); every other word names an extra.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    extras["build"] = [*project["build-system"]["requires"], "cmake>=3.24", "ninja>=1.11"]
    for name in sys.argv[1:]:
        print(*extras[name], sep="\n")


if __name__ == "__main__":
    main()
