"""A conversation to the text of a prompt, by the model's own Jinja template.

Rendered exactly as Hugging Face transformers does it: the same environment, filters, globals and variables.
The template comes from a stranger, hence the sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.sandbox import MAX_RANGE, ImmutableSandboxedEnvironment

from cupola.errors import ModelError, RequestError

# One message as templates see it: role, content, and whatever else the template of a family knows.
Message = Mapping[str, object]


_REASONING = ("reasoning_content", "thinking", "reasoning")


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


class _SafeNamespace(jinja2.utils.Namespace):
    """`namespace()`, as transformers has it: names that begin with an underscore are refused."""

    def __init__(self, /, *arguments: Mapping[str, object], **named: object) -> None:
        attributes: dict[str, object] = dict(*arguments, **named)
        for name in attributes:
            _check_attribute(name)
        super().__init__(attributes)

    def __setitem__(self, name: str, value: object) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot have the attribute {name!r}")


class _SafeDict:
    """`dict()` and `dict.fromkeys()` and nothing else of the class, as transformers has it."""

    def __call__(self, *arguments: Mapping[str, object], **named: object) -> dict[str, object]:
        return dict(*arguments, **named)

    def fromkeys(self, keys: Iterable[object], value: object = None) -> dict[object, object]:
        return dict.fromkeys(keys, value)


class ChatTemplate:
    """A model's chat template.

    Args:
        source: the Jinja text.
        special_tokens: strings that the template may use by name, such as bos_token and eos_token.
        tool_use: the Jinja text for conversations with tools, of a model that has another one for these.

    Raises:
        ModelError: the source is not a template.
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str] | None = None, tool_use: str | None = None
    ) -> None:
        self.source = source
        self.sources = source if tool_use is None else f"{source}\n{tool_use}"  # to look for words in
        self._special_tokens = dict(special_tokens or {})
        self._template = _parse(source, "chat_template.jinja")
        self._tool_use = self._template if tool_use is None else _parse(tool_use, "chat_template.tool_use.jinja")

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        documents: Sequence[Mapping[str, object]] | None = None,
        arguments: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt for a conversation.

        Args:
            messages: at least one.
            add_generation_prompt: end with the start of an assistant message.
            tools: JSON schemas of functions, for templates that know tools.
            documents: what the answer shall rest on, for templates that know documents.
            arguments: further variables, such as `enable_thinking`.

        Raises:
            RequestError: the template refuses the messages, or cannot render them.
        """
        if not messages:
            raise RequestError("`messages` is empty; at least one message is needed", param="messages")
        variables: dict[str, object] = {
            **self._special_tokens,
            **(arguments or {}),
            "messages": [_with_reasoning(message) for message in messages],
            "tools": list(tools) if tools else None,
            "documents": list(documents) if documents else None,
            "add_generation_prompt": add_generation_prompt,
            "range": _Rounds(),
        }
        template = self._tool_use if tools else self._template
        try:
            return template.render(variables)
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


def _parse(source: str, file: str) -> jinja2.Template:
    try:
        return _environment().from_string(source)
    except Exception as error:  # Jinja's own, and Python's of what Jinja made of it: a `break` outside of a loop
        raise ModelError(
            f"The chat template of the model is not valid Jinja: {error}",
            hint=f"Correct `{file}` in the compiled folder, and compile again.",
        ) from error


class _Rounds:
    """`range` for one rendering: all that it counts is bounded together, so that nested loops come to an end."""

    def __init__(self) -> None:
        self._left = MAX_RANGE

    def __call__(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self._left -= len(numbers)
        if self._left < 0:
            raise OverflowError(f"its loops count further than {MAX_RANGE}")
        return numbers


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _SafeDict()
    environment.globals["namespace"] = _SafeNamespace
    del environment.globals["lipsum"]  # as much text as a template asks for, and no prompt needs any
    return environment


def _with_reasoning(message: Message) -> Message:
    """Reasoning under the names by which templates know it; those of gpt-oss read `thinking`."""
    reasoning = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


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
