"""Writes grammars in llguidance's Lark: rules, quoted text, special tokens. Knows nothing of what they are for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_TEXT = "/(?s:.*)/"


class LarkWriter:
    """Collects rules.

    Args:
        special_ids: text that stands for a special token, and its id: grammars have to name the token.
    """

    def __init__(self, special_ids: Mapping[str, int]) -> None:
        self._special_ids = special_ids
        tokens = sorted(special_ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, tokens))) if tokens else None
        self._rules: dict[str, str] = {}

    def text(self, start: str) -> str:
        """The whole grammar; `start` is the body of its first rule."""
        rules = [f"start: {start}", *(f"{name}: {body}" for name, body in self._rules.items())]
        return "%llguidance {}\n" + "\n".join(rules)

    def rule(self, name: str, body: str) -> str:
        """Adds a rule, whose name may have options in brackets; gives the name to refer to it by."""
        bare, bracket, options = name.partition("[")
        unique, number = bare, 0
        taken = {other.partition("[")[0] for other in self._rules}
        while unique in taken:
            number += 1
            unique = f"{bare}_{number}"
        self._rules[unique + bracket + options] = body or '""'
        return unique

    def terminal(self, name: str, body: str) -> str:
        """Adds a terminal once; gives its name."""
        self._rules[name] = body
        return name

    def quoted(self, text: str) -> str:
        """Text that has no special token."""
        return json.dumps(text)

    def literal(self, text: str) -> str:
        """Exactly this text, special tokens where it has some; empty for none."""
        parts: list[str] = []
        at = 0
        for match in self._special.finditer(text) if self._special is not None else ():
            parts += [self.quoted(text[at : match.start()])] if match.start() > at else []
            parts.append(f"<[{self._special_ids[match.group()]}]>")
            at = match.end()
        parts += [self.quoted(text[at:])] if at < len(text) else []
        return " ".join(parts)

    def join(self, *parts: str) -> str:
        """One after the other."""
        return " ".join(f"({part})" if " | " in part else part for part in parts if part)

    def up_to(self, name: str, end: str) -> str:
        """Any text up to the first `end`, and that."""
        if end in self._special_ids:
            return f"{_TEXT} {self.literal(end)}"
        return self.rule(f"{name}[suffix={self.quoted(end)}]", _TEXT)
