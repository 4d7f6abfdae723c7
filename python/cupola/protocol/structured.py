"""Fields that say what the generated text must look like: OpenAI's `response_format`, and vLLM's names for the rest.

At most one of them may be given. Whether a schema or a grammar can be used is the engine's to find out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import WireModel

_MAX_CHARACTERS = 1 << 21
_MAX_CHOICES = 20_000

Text = Annotated[str, Field(min_length=1, max_length=_MAX_CHARACTERS)]
Choices = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=_MAX_CHOICES)]
Schema = dict[str, JsonValue] | bool | Text

ConstraintKind = Literal["json_schema", "json_object", "regex", "choice", "grammar"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a request asks of its text.

    Args:
        field: the field of the request that asks it, for errors.
        kind: how `value` is to be read.
        value: a JSON schema, parsed or as text; nothing for json_object; a pattern; strings; a grammar.
    """

    field: str
    kind: ConstraintKind
    value: JsonValue | tuple[str, ...]


class JsonSchemaFormat(WireModel):
    """A schema with a name. `strict` changes nothing here: every schema is kept to."""

    name: str | None = Field(None, max_length=256)
    description: str | None = None
    strict: bool | None = None
    json_schema: Schema = Field(alias="schema")


class ResponseFormat(WireModel):
    """OpenAI's: text, any JSON object, or JSON that fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> ResponseFormat:
        if (self.json_schema is None) == (self.type == "json_schema"):
            raise PydanticCustomError(
                "response_format", "`json_schema` is needed with the type `json_schema`, and only with it"
            )
        return self

    @property
    def constraint(self) -> Constraint | None:
        """None for plain text."""
        if self.json_schema is not None:
            return Constraint("response_format", "json_schema", self.json_schema.json_schema)
        return Constraint("response_format", "json_object", None) if self.type == "json_object" else None


class StructuredOutputs(WireModel):
    """vLLM's: exactly one of these."""

    json_schema: Schema | None = Field(None, alias="json")
    json_object: Literal[True] | None = None
    regex: Text | None = None
    choice: Choices | None = None
    grammar: Text | None = None

    @model_validator(mode="after")
    def _check_one(self) -> StructuredOutputs:
        if len(self._given()) != 1:
            raise PydanticCustomError(
                "structured_outputs", "exactly one of `json`, `json_object`, `regex`, `choice` and `grammar` is needed"
            )
        return self

    def _given(self) -> list[Constraint]:
        return _constraints(
            ("structured_outputs", "json_schema", self.json_schema),
            ("structured_outputs", "json_object", self.json_object),
            ("structured_outputs", "regex", self.regex),
            ("structured_outputs", "choice", self.choice),
            ("structured_outputs", "grammar", self.grammar),
        )

    @property
    def constraint(self) -> Constraint:
        """What was given."""
        return self._given()[0]


class StructuredFields(WireModel):
    """The fields of a request, in all the ways that clients write them."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: Text | None = None
    guided_choice: Choices | None = None
    guided_grammar: Text | None = None

    @property
    def constraint(self) -> Constraint | None:
        """What the text must look like; None if it is free."""
        return next(iter(self._all_constraints()), None)

    def _all_constraints(self) -> list[Constraint]:
        wrapped = (self.response_format, self.structured_outputs)
        found = [field.constraint for field in wrapped if field is not None]
        return [constraint for constraint in found if constraint is not None] + _constraints(
            ("guided_json", "json_schema", self.guided_json),
            ("guided_regex", "regex", self.guided_regex),
            ("guided_choice", "choice", self.guided_choice),
            ("guided_grammar", "grammar", self.guided_grammar),
        )

    @model_validator(mode="after")
    def _check_one_constraint(self) -> StructuredFields:
        constraints = self._all_constraints()
        if len(constraints) > 1:
            raise PydanticCustomError(
                "several_constraints",
                "`{second}` cannot be combined with `{first}`: the text can follow one of them only",
                {"first": constraints[0].field, "second": constraints[1].field, "param": constraints[1].field},
            )
        return self


def _constraints(*given: tuple[str, ConstraintKind, JsonValue | tuple[str, ...]]) -> list[Constraint]:
    return [Constraint(*constraint) for constraint in given if constraint[2] is not None]
