"""Chat templates rendered by transformers: every template of the folder with every conversation.

A rendering is a text, or {"refused": message} where the template raised an exception of its own, or {"refused": null}
where it could not be rendered.
"""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def write_templates(inputs: Path, out: Path) -> None:
    """Writes `rendered.json`: template -> conversation -> rendering."""
    out.mkdir(parents=True, exist_ok=True)
    conversations = json.loads((inputs / "conversations.json").read_text(encoding="utf-8"))
    rendered = {
        path.stem: {name: _render(path.read_text(encoding="utf-8"), given) for name, given in conversations.items()}
        for path in sorted(inputs.glob("*.jinja"))
    }
    text = json.dumps(rendered, ensure_ascii=False, indent=1)
    (out / "rendered.json").write_text(text + "\n", encoding="utf-8")


def _render(template: str, given: dict) -> str | dict[str, str | None]:
    try:
        [text], _ = render_jinja_template(
            [given["messages"]],
            tools=given.get("tools"),
            documents=given.get("documents"),
            chat_template=template,
            add_generation_prompt=given.get("add_generation_prompt", True),
            **SPECIAL_TOKENS,
            **given.get("arguments", {}),
        )
    except jinja2.TemplateError as error:
        return {"refused": error.message if type(error) is jinja2.TemplateError else None}
    except Exception:  # whatever a template does with data that it does not expect
        return {"refused": None}
    return text
