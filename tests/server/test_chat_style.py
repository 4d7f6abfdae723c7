"""How a model converses is found from its chat template: what it takes, and how its replies are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cupola.engine.backends.scripted import CHAT_TEMPLATE, byte_tokenizer
from cupola.engine.request import ThinkingLimit
from cupola.errors import RequestError, UsageError
from cupola.protocol.conversation import Conversation, Message, TextPart, Tool, ToolCall, ToolChoice, text_message
from cupola.server.chat_style import ChatStyle
from cupola.text.chat_template import ChatTemplate
from cupola.text.template_form import TemplateForm

QWEN = """\
{%- if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}{{ '<tool_response>' + message.content + '</tool_response>' }}
{%- else %}{{ '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}{{ '<|im_end|>\\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}
{%- elif enable_thinking is defined %}{{ '<think>\\n' }}{%- endif %}{%- endif %}"""  # noqa: E501
MISTRAL = """\
{%- for message in messages %}
{%- if message.role == 'system' and not loop.first %}{{ raise_exception('system messages come first') }}{% endif %}
{%- if message.tool_calls %}{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('ids have length 9') }}{% endif %}
{{- '[TOOL_CALLS] [{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + ', "id": "' + call.id + '"}]' }}
{%- endfor %}{% else %}{{ '[' + message.role + ']' + message.content }}{% endif %}{%- endfor %}
{%- for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"""  # noqa: E501
DEEPSEEK = """\
{%- for message in messages %}
{%- if message.role == 'system' %}{{ raise_exception('no system') }}{% endif %}
{%- if message.content is not none %}{{ '<' + message.role + '>' + message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- '<｜tool▁calls▁begin｜>' + call['function']['name'] + '\\n```json\\n' + call['function']['arguments'] }}
{%- endfor %}{% endfor %}{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}<think>
"""
PARTS = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
USER = text_message("user", "hi")
CALLED = (
    USER,
    Message("assistant", tool_calls=(ToolCall("call_12345", "f", '{"a": 1}'),)),
    Message("tool", (TextPart("2"),), tool_call_id="call_12345"),
)


def style(source: str, reply_format: str = "auto") -> ChatStyle:
    return ChatStyle.of(ChatTemplate(source), byte_tokenizer(), reply_format)


@pytest.mark.parametrize(
    ("source", "form"),
    [
        (CHAT_TEMPLATE, TemplateForm()),
        (QWEN, TemplateForm(tools=True)),
        (MISTRAL, TemplateForm(tools=True, short_ids=True)),
        (DEEPSEEK, TemplateForm(tools=True, text_arguments=True)),
        (PARTS, TemplateForm(parts=True)),
        (
            "{% for m in messages %}{{ m.role in ['developer'] }}{{ m.content }}{% endfor %}",
            TemplateForm(developer=True),
        ),
    ],
)
def test_a_template_is_asked_what_it_takes(source: str, form: TemplateForm) -> None:
    assert style(source).form == form


@pytest.mark.parametrize(
    ("source", "calls", "reasoning"),
    [
        (CHAT_TEMPLATE, "hermes", None),
        (QWEN, "hermes", "think"),
        (MISTRAL, "mistral", None),
        (DEEPSEEK, "deepseek-v3", "think"),
    ],
)
def test_the_format_of_replies_is_found(source: str, calls: str, reasoning: str | None) -> None:
    found = style(source).format
    assert found.calls is not None
    assert (found.calls.name, found.reasoning.name if found.reasoning else None) == (calls, reasoning)


def test_the_format_of_replies_may_be_named() -> None:
    found = style(QWEN, "llama+none").format
    assert found.calls is not None
    assert (found.calls.name, found.reasoning) == ("llama", None)
    for name in ("nonsense", "hermes+nonsense"):
        with pytest.raises(UsageError, match="nonsense"):
            style(QWEN, name)


def test_calls_and_results_reach_the_template() -> None:
    text = style(QWEN).render(Conversation(CALLED, (Tool("f"),)))
    assert '{"name": "f", "arguments": {"a": 1}}' in text
    assert "<tool_response>2</tool_response>" in text


def test_ids_are_made_to_fit() -> None:
    text = style(MISTRAL).render(Conversation(CALLED, (Tool("f"),)))
    assert "call_12345" not in text
    assert text == style(MISTRAL).render(Conversation(CALLED, (Tool("f"),))), "the same each time"


def test_what_a_template_refuses_is_said_in_another_form() -> None:
    late = Conversation((USER, text_message("system", "Be brief.")))
    assert style(MISTRAL).render(late) == "[system]Be brief.[user]hi"
    assert "<user>Be brief.\n\nhi" in style(DEEPSEEK).render(late)
    with pytest.raises(RequestError, match="no way"):
        style("{{ raise_exception('no way') }}").render(late)


def test_tools_that_must_not_be_called_are_not_shown() -> None:
    asked = Conversation((USER,), (Tool("secret"),))
    assert "secret" in style(QWEN).render(asked)
    assert "secret" not in style(QWEN).render(replace(asked, tool_choice=ToolChoice("none")))


@pytest.mark.parametrize(
    ("effort", "arguments", "ending"),
    [
        (None, {}, "assistant\n"),
        ("none", {}, "<think>\n\n</think>\n\n"),
        ("high", {}, "<think>\n"),
        ("high", {"enable_thinking": False}, "<think>\n\n</think>\n\n"),
    ],
)
def test_effort_means_something_to_templates_that_know_on_and_off(
    effort: str | None, arguments: dict[str, bool], ending: str
) -> None:
    found = style(QWEN)
    asked = Conversation((USER,), reasoning_effort=effort, template_arguments=dict(arguments))
    prompt = found.render(asked)
    assert prompt.endswith(ending)
    reading = found.reading(asked, prompt, guaranteed=False)
    assert reading.inside_reasoning == (ending == "<think>\n")
    state = {"<think>\n": "begun", "assistant\n": "possible"}.get(ending, "none")
    assert found.plan(reading, prompt).reasoning == state


def test_a_budget_of_reasoning_counts_from_where_it_begins() -> None:
    found = replace(style(QWEN), marks=((300,), (301,)))
    assert found.thinking_limit("assistant\n", 7) == ThinkingLimit((300,), 301, 7)
    assert found.thinking_limit("assistant\n<think>\n", 7) == ThinkingLimit((300,), 301, 7, begun=True)
    assert found.thinking_limit("<think>\n\n</think>\n\n", 7) is None
    assert found.thinking_limit("assistant\n", None) is None
    assert style(MISTRAL).thinking_limit("", 7) is None, "it does not reason"


def test_a_budget_needs_a_token_that_ends_reasoning() -> None:
    assert style(QWEN).marks == (tuple(b"<think>"), tuple(b"</think>"))
    with pytest.raises(RequestError, match="budget of 7 tokens") as caught:
        style(QWEN).thinking_limit("assistant\n", 7)
    assert caught.value.param == "thinking_token_budget"


def test_special_tokens_of_delimiters_are_shown_and_others_not() -> None:
    found = ChatStyle.of(ChatTemplate(QWEN), byte_tokenizer(), "auto")
    assert found.shown_ids(found.reading(Conversation((USER,), (Tool("f"),)), "", guaranteed=False)) == ()
    tokens = {"<tool_call>": 300, "</think>": 301, "<|im_end|>": 258}
    found = replace(found, special_tokens=tokens)
    with_tools = found.reading(Conversation((USER,), (Tool("f"),)), "", guaranteed=False)
    assert set(found.shown_ids(with_tools)) == {300, 301}
    assert found.shown_ids(found.reading(Conversation((USER,)), "", guaranteed=False)) == (301,)
