"""Where Cupola's data folders lie: `web` (the chat page), `compile_configs` (one TOML a device) and `texts`.

In a wheel they are inside the package; in a source tree (an editable install) they lie at the root of the repository,
and that copy is the one in use, so that an edit shows without a new installation.
"""

from __future__ import annotations

from pathlib import Path

from cupola.errors import StorageError


def resource_folder(name: str) -> Path:
    """Finds the folder `web`, `compile_configs` or `texts`.

    Raises:
        StorageError: the installation lacks it.
    """
    package = Path(__file__).resolve().parent
    repository = package.parents[1]
    in_source_tree = (repository / "pyproject.toml").is_file() and package == repository / "python" / "cupola"
    folder = (repository if in_source_tree else package) / name
    if not folder.is_dir():
        raise StorageError(
            f"The folder `{name}` is missing from the installation: {folder} does not exist.",
            hint="install Cupola again: `pip install --force-reinstall cupola`",
        )
    return folder
