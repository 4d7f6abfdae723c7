"""The JSON schemas of the suite as data, the judge of answers, and random texts that a grammar admits.

`schemas/*.json` has those that can be asked for, from values to recursive records, each with instances that fit and
some that do not; `refused_schemas.json` has those that the server must refuse, each with the words that name why.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from jsonschema import Draft202012Validator, FormatChecker

from cupola.engine.backends.scripted import EOS_ID
from cupola.engine.grammar import CompiledGrammar
from grammar_oracle import Walk

_HERE = Path(__file__).parent
FILES = sorted(path.stem for path in (_HERE / "schemas").glob("*.json"))

_MAX_BYTES = 1000
# Outside of strings: what ends a text soonest, first. Inside, the quotation mark does.
_ENDING = b"}],n"
_DIGITS = b"0123456789"


@dataclass(frozen=True, slots=True)
class SchemaCase:
    """A schema with instances that fit it, written with properties in its order, and instances that do not."""

    name: str
    schema: object
    fits: Sequence[object] = ()
    misfits: Sequence[object] = ()

    def problem(self, text: str) -> str | None:
        """What `jsonschema` with all its formats finds wrong with an answer; None: it fits."""
        judge = Draft202012Validator(_parsed(json.dumps(self.schema)), format_checker=_FORMATS)
        error = next(judge.iter_errors(_parsed(text)), None)
        return None if error is None else f"{self.name}: {text!r}: {error.message}"


@dataclass(frozen=True, slots=True)
class RefusedCase:
    """A schema that cannot be used; the error has to say `names`."""

    name: str
    schema: object
    names: str


def schemas(file: str) -> list[SchemaCase]:
    """The schemas of one file."""
    return [SchemaCase(**case) for case in json.loads((_HERE / "schemas" / f"{file}.json").read_text())]


def all_schemas() -> list[SchemaCase]:
    """Every schema that can be asked for, the simple ones first."""
    return [case for file in FILES for case in schemas(file)]


def refused_schemas() -> list[RefusedCase]:
    """Every schema that has to be refused."""
    return [RefusedCase(**case) for case in json.loads((_HERE / "refused_schemas.json").read_text())]


def admits(grammar: CompiledGrammar, instance: object) -> bool:
    """Whether this instance, in the one layout, is a complete text of the grammar (over bytes)."""
    walk = Walk(grammar)
    return all(walk.accept(byte) for byte in json.dumps(instance, ensure_ascii=False).encode()) and walk.accepting


def random_text(grammar: CompiledGrammar, dice: random.Random) -> str | None:
    """A text that the grammar (over bytes) admits: free for a while, then led to its end. None: it found no end."""
    walk, written, string = Walk(grammar), bytearray(), _StringState()
    free = dice.choice((0, 8, 40, 120))
    while not walk.stopped:
        allowed = walk.allowed()
        assert allowed, f"nothing may follow {bytes(written)!r}"
        token = dice.choice(allowed) if len(written) < free else _towards_the_end(allowed, string.inside, dice)
        if token == EOS_ID:
            break
        assert walk.accept(token)
        written.append(token)
        string.push(token)
        if len(written) == _MAX_BYTES:
            return None
    return written.decode()


def _towards_the_end(allowed: Sequence[int], inside: bool, dice: random.Random) -> int:
    if EOS_ID in allowed:
        return EOS_ID
    soonest = next((byte for byte in (b'"' if inside else _ENDING) if byte in allowed), None)
    if soonest is not None:
        return soonest
    if inside:
        return dice.choice(allowed)
    flat = [byte for byte in allowed if byte not in b"[{"]  # no deeper than needed
    return dice.choice([byte for byte in flat if byte in _DIGITS] or flat or allowed)


def _parsed(text: str) -> object:
    """JSON with exact fractions: 40.51 is a multiple of 0.01, which a double does not know."""
    return json.loads(text, parse_float=_exact)


def _exact(number: str) -> Decimal | float:
    try:
        return Decimal(number)
    except InvalidOperation:
        return float(number)  # an exponent of a dozen digits


def _formats() -> FormatChecker:
    """What `jsonschema` knows, but with second 60 in any minute: RFC 3339's grammar, hence the masks, have it."""
    known = Draft202012Validator.FORMAT_CHECKER.checkers
    checker = FormatChecker(())
    checker.checkers = dict(known)
    for name in ("time", "date-time"):
        check = known[name][0]
        checker.checks(name)(lambda value, check=check: check(value.replace(":60", ":59")))
    return checker


_FORMATS = _formats()


class _StringState:
    """Whether JSON text stands within a string."""

    def __init__(self) -> None:
        self.inside = False
        self._escaped = False

    def push(self, byte: int) -> None:
        if self._escaped:
            self._escaped = False
        elif self.inside and byte == ord("\\"):
            self._escaped = True
        elif byte == ord('"'):
            self.inside = not self.inside
