"""An error's way from one Cupola process to another: the compiler's, to whoever started it.

The parent opens a pipe and names its file descriptor in the environment; the child then writes its error there, as
one JSON object, in place of printing it. The parent raises it again, as the class that it was.
"""

from __future__ import annotations

import json
import os

from cupola import errors
from cupola.errors import CupolaError

ERROR_FD_VARIABLE = "CUPOLA_ERROR_FD"


def hand_over(error: CupolaError) -> bool:
    """Give an error to the parent process. False: none waits for it."""
    descriptor = os.environ.get(ERROR_FD_VARIABLE, "")
    if not descriptor.isdecimal():
        return False
    content = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
    try:
        os.write(int(descriptor), json.dumps(content).encode())
    except OSError:
        return False
    return True


def read_error(text: str) -> CupolaError | None:
    """The error that a child handed over; None if it said nothing that can be understood."""
    try:
        content = json.loads(text)
        kind = getattr(errors, content["kind"])
        error: CupolaError = kind(content["message"], hint=content["hint"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return error
