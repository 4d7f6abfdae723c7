"""The template renderer under anything: a text, or one of Cupola's own errors, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.errors import CupolaError
from cupola.text.chat_template import ChatTemplate

PIECES = (
    "{{ messages }}", "{{ messages[0].content }}", "{{ messages[-1]['role'] }}", "{{ undefined.x }}", "{{ x }}",
    "{% for m in messages %}", "{% endfor %}", "{% if tools %}", "{% elif x is defined %}", "{% else %}", "{% endif %}",
    "{% set x = 1 %}", "{% set ns = namespace(n=0) %}", "{% set ns.n = ns.n + 1 %}", "{% break %}", "{% continue %}",
    "{% macro f(a, b=2) %}", "{% endmacro %}", "{{ f(1) }}", "{{ tools | tojson }}", "{{ messages | length }}",
    "{{ strftime_now('%Y') }}", "{{ raise_exception('no') }}", "{% generation %}", "{% endgeneration %}",
    "{{ 'a' * 9 }}", "{{ 1 / 0 }}", "{{ [1][9] }}", "{{ messages.__class__ }}", "{{ ''.__class__.__mro__ }}",
    "{{ range(9) | list }}", "{{ 2 ** 8 }}", "{{ 'x'.format(1) }}", "{{ '{0.__class__}'.format(1) }}", "{{-", "-}}",
    "{%", "%}", "{#", "#}", "\n", "  ", "é", "{% filter upper %}", "{% endfilter %}", "{{ cycler(1, 2).next() }}",
    "{{ messages | map(attribute='role') | join(',') }}", "{{ messages | selectattr('x') | list }}", "{{ dict(a=1) }}",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=3,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": JSON})
    | st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    max_size=4,
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def render(source: str, messages: list, tools: list | None) -> str | None:
    """The rendered text; None after an error of Cupola's own."""
    try:
        return ChatTemplate(source, {"bos_token": "<s>"}).render(messages, tools=tools)
    except CupolaError:
        return None


@settings(max_examples=150)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=9), messages=MESSAGES, tools=st.none() | st.lists(JSON))
def test_any_template(pieces: list[str], messages: list, tools: list | None) -> None:
    text = render("".join(pieces), messages, tools)
    assert text is None or "<class" not in text, "the sandbox was left"


@settings(max_examples=100)
@given(source=st.text(alphabet="{}%#-|'\"x.()[]=+ \nifor", max_size=40))
def test_any_characters(source: str) -> None:
    render(source, [{"role": "user", "content": "x"}], None)


@settings(max_examples=100)
@given(messages=MESSAGES, tools=st.none() | st.lists(JSON, max_size=2))
def test_any_conversation(messages: list, tools: list | None) -> None:
    text = render(CHATML, messages, tools)
    assert text is None or text.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "source",
    [
        "{% break %}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{{ 'x' * 9999999999999999999 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "[" * 500 + "]" * 500 + " }}",
    ],
)
def test_a_template_that_cannot_be_is_an_error(source: str) -> None:
    """Templates come with models, and a model may come from anywhere."""
    assert render(source, [{"role": "user", "content": "x"}], None) is None
