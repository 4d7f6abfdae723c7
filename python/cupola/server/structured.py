"""From what a request asks of its text to the engine's grammars. Knows both vocabularies, and no endpoint."""

from __future__ import annotations

import json

from cupola.engine.grammar import GrammarKind, GrammarSpec
from cupola.protocol.structured import Constraint, StructuredFields


def grammar_of(request: StructuredFields) -> GrammarSpec | None:
    """The grammar that the text shall follow, or None if it is free."""
    constraint = request.constraint
    return None if constraint is None else GrammarSpec(GrammarKind(constraint.kind), _text(constraint))


def grammar_field(request: StructuredFields) -> str:
    """The field of the request that the grammar came from, for errors."""
    constraint = request.constraint
    return "grammar" if constraint is None else constraint.field


def _text(constraint: Constraint) -> str:
    if constraint.value is None or constraint.kind == "json_object":
        return ""
    return constraint.value if isinstance(constraint.value, str) else json.dumps(constraint.value)
