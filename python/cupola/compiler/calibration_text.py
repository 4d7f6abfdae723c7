"""The text that calibration runs through a model. Knows no model, and no TVM: the cache asks it for its key."""

from __future__ import annotations

from pathlib import Path

from cupola.compiler.config import QuantizeConfig
from cupola.errors import UsageError
from cupola.resources import resource_folder

AUTO = "auto"


def text_of(config: QuantizeConfig) -> tuple[str, str] | None:
    """The name and content of the text to calibrate with; None: no calibration. UsageError: it cannot be read."""
    if not config.calibrate and not config.budgeted:
        return None
    ours = config.calibrate in ("", AUTO)
    path = resource_folder("texts") / "calibration.txt" if ours else Path(config.calibrate)
    try:
        return path.name, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the calibration text `{path}`: {error}",
            hint="name a file, or `auto` for the text that comes with Cupola",
        ) from error
