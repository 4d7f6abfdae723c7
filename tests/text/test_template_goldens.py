"""Chat templates are rendered as transformers renders them: the goldens are its own renderings (`make goldens`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cupola.errors import RequestError
from cupola.text.chat_template import ChatTemplate

FOLDER = Path(__file__).parents[1] / "goldens" / "templates"
RENDERED = json.loads((FOLDER / "rendered.json").read_text(encoding="utf-8"))
CONVERSATIONS = json.loads((FOLDER / "conversations.json").read_text(encoding="utf-8"))
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def render(template: ChatTemplate, conversation: str) -> str | dict[str, str | None]:
    given = CONVERSATIONS[conversation]
    try:
        return template.render(
            given["messages"],
            add_generation_prompt=given.get("add_generation_prompt", True),
            tools=given.get("tools"),
            documents=given.get("documents"),
            arguments=given.get("arguments"),
        )
    except RequestError as error:
        refusal = "The chat template of the model refuses these messages: "
        return {"refused": error.message.removeprefix(refusal) if error.message.startswith(refusal) else None}


def test_every_template_has_its_goldens() -> None:
    assert {path.stem for path in FOLDER.glob("*.jinja")} == RENDERED.keys()
    assert all(renderings.keys() == CONVERSATIONS.keys() for renderings in RENDERED.values())
    assert len(RENDERED) >= 20


@pytest.mark.parametrize("name", sorted(RENDERED))
def test_a_template_renders_as_transformers_renders_it(name: str) -> None:
    template = ChatTemplate((FOLDER / f"{name}.jinja").read_text(encoding="utf-8"), SPECIAL_TOKENS)
    assert {conversation: render(template, conversation) for conversation in CONVERSATIONS} == RENDERED[name]


def test_most_renderings_are_texts() -> None:
    texts = [text for renderings in RENDERED.values() for text in renderings.values() if isinstance(text, str)]
    assert len(texts) > 200
