"""Templates are rendered as Hugging Face transformers renders them, and their refusals are the client's errors."""

from __future__ import annotations

from datetime import datetime

import pytest

from cupola.errors import ModelError, RequestError
from cupola.text.chat_template import ChatTemplate

CHATML = """\
{% for message in messages %}
    {% if loop.first and messages[0]['role'] != 'system' %}
        {{ '<|im_start|>system\\nYou are helpful<|im_end|>\\n' }}
    {% endif %}
{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
USER = {"role": "user", "content": "Hi <b>"}


def render(source: str, *messages: dict[str, object], **arguments: object) -> str:
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}).render(
        messages or [USER], arguments=arguments
    )


def test_blocks_take_their_lines_with_them() -> None:
    """trim_blocks and lstrip_blocks: a line with only a tag leaves nothing, its indentation included."""
    assert ChatTemplate(CHATML).render([USER]) == (
        "        <|im_start|>system\nYou are helpful<|im_end|>\n\n"
        "<|im_start|>user\nHi <b><|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_a_generation_prompt() -> None:
    assert ChatTemplate(CHATML).render([USER], add_generation_prompt=False).endswith("<|im_end|>\n")


def test_special_tokens_are_known_by_name() -> None:
    assert render("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}") == "<s>Hi <b></s>"


def test_tools_are_none_unless_given() -> None:
    source = "{% if tools is none %}none{% else %}{{ tools | tojson }}{% endif %}"
    assert render(source) == "none"
    tools = [{"name": "größe", "quote": "it's <1>"}]
    # Not Jinja's own filter, which would write \u003c and \u0027.
    assert ChatTemplate(source).render([USER], tools=tools) == '[{"name": "größe", "quote": "it\'s <1>"}]'


def test_tojson_takes_the_arguments_of_json_dumps() -> None:
    source = "{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=true, separators=(',', ':')) }}"
    assert render(source) == '{\n "a":[\n  2\n ],\n "b":1\n}'


def test_loop_controls() -> None:
    source = (
        "{% for n in range(9) %}{% if n == 1 %}{% continue %}{% endif %}{% if n > 3 %}{% break %}{% endif %}{{ n }}"
    )
    assert render(source + "{% endfor %}") == "023"


def test_the_generation_tag_only_renders() -> None:
    source = "{% for m in messages %}{% generation %}[{{ m.content }}{% set x = 1 %}]{% endgeneration %}{% endfor %}"
    assert render(source) == "[Hi <b>]"


def test_the_date_is_todays() -> None:
    before = datetime.now().strftime("%d %b %Y")
    shown = render("{{ strftime_now('%d %b %Y') }}")
    assert shown in (before, datetime.now().strftime("%d %b %Y"))


def test_further_arguments_reach_the_template() -> None:
    assert render("{{ 'think' if enable_thinking else 'no' }}", enable_thinking=True) == "think"


def test_arguments_cannot_take_the_place_of_the_conversation() -> None:
    assert render("{{ messages | length }}", USER, USER, messages=[]) == "2"


def test_a_refusal_is_the_clients_error_with_the_templates_words() -> None:
    with pytest.raises(RequestError, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0]['content'] + 1 }}",
        "{{ messages[5].content.x }}",
        "{{ messages[0].content.nothing.more }}",
        "{% include 'x' %}",
        "{{ 1 / 0 }}",
    ],
)
def test_what_cannot_be_rendered_is_the_clients_error(source: str) -> None:
    with pytest.raises(RequestError, match="cannot render"):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% for n in range(10000000) %}{% endfor %}",
        "{% for n in range(99999) %}{% for m in range(99999) %}{% endfor %}{% endfor %}",
        "{{ lipsum(n=99999999) }}",
    ],
)
def test_a_template_stays_in_its_sandbox(source: str) -> None:
    with pytest.raises(RequestError, match="cannot render"):
        render(source)


def test_the_messages_of_the_caller_are_not_changed() -> None:
    messages = [dict(USER)]
    with pytest.raises(RequestError):
        ChatTemplate("{{ messages[0].update({'role': 'system'}) }}").render(messages)
    assert messages == [USER]


def test_no_messages_are_refused() -> None:
    with pytest.raises(RequestError, match="empty"):
        ChatTemplate(CHATML).render([])


def test_a_broken_template_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="not valid Jinja"):
        ChatTemplate("{% for m in messages %}")


def test_a_template_of_its_own_for_tools() -> None:
    template = ChatTemplate("plain", tool_use="{{ tools[0].name }}")
    messages = [{"role": "user", "content": "Hi"}]
    assert template.render(messages) == "plain"
    assert template.render(messages, tools=[]) == "plain"
    assert template.render(messages, tools=[{"name": "f"}]) == "f"
    assert "tools" in template.sources
    with pytest.raises(ModelError, match=r"not valid Jinja") as caught:
        ChatTemplate("plain", tool_use="{% for %}")
    assert "chat_template.tool_use.jinja" in str(caught.value.hint)
