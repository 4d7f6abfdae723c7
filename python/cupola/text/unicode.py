"""Half of a surrogate pair: JSON can escape one, but no text can have it, and UTF-8 cannot write it."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """Whether all of it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
