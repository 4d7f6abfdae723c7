"""A conversation to the text of a prompt, by the model's own Jinja template.

Rendered exactly as Hugging Face transformers does it: the same environment, filters, globals and variables.
The template comes from a stranger, hence the sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cupola.errors import ModelError, RequestError

# One message as templates see it: role, content, and whatever else the template of a family knows.
Message = Mapping[str, object]


class _Refusal(jinja2.TemplateError):
    """`raise_exception` was called by the template."""


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks what the assistant wrote, for training; here it only renders."""

    tags = {"generation"}  # noqa: RUF012 (declared so by the base class)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A scope of its own, as the call block of transformers has.
        return jinja2.nodes.Scope(body).set_lineno(line)


class ChatTemplate:
    """A model's chat template.

    Args:
        source: the Jinja text.
        special_tokens: strings that the template may use by name, such as bos_token and eos_token.

    Raises:
        ModelError: the source is not a template.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        self.source = source
        self._special_tokens = dict(special_tokens or {})
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(
                f"The chat template of the model is not valid Jinja: {error}",
                hint="Correct `chat_template.jinja` in the compiled folder, and compile again.",
            ) from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        arguments: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt for a conversation.

        Args:
            messages: at least one.
            add_generation_prompt: end with the start of an assistant message.
            tools: JSON schemas of functions, for templates that know tools.
            arguments: further variables, such as `enable_thinking`.

        Raises:
            RequestError: the template refuses the messages, or cannot render them.
        """
        if not messages:
            raise RequestError("`messages` is empty; at least one message is needed", param="messages")
        variables: dict[str, object] = {
            **self._special_tokens,
            **(arguments or {}),
            "messages": list(messages),
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._template.render(variables)
        except _Refusal as error:
            raise RequestError(
                f"The chat template of the model refuses these messages: {error}", param="messages"
            ) from error
        except Exception as error:  # whatever a stranger's template does with data that it does not expect
            raise RequestError(
                f"The chat template of the model cannot render these messages: {error}",
                param="messages",
                hint="Check the roles and the form of each message's content.",
            ) from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which would put `\u0027` into a prompt.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> str:
    raise _Refusal(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
