"""`python -m cupola`: the same as the `cupola` command."""

from __future__ import annotations

from cupola.cli.main import main

if __name__ == "__main__":
    main()
