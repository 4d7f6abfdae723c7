"""The text files of a Hugging Face folder: tokenizer, chat templates, generation defaults.

Owns which file is used where several say the same, and what a compiled folder gets:

    tokenizer.json              the folder's own, else built from its SentencePiece model
    chat_template.jinja         chat_template.jinja, else chat_template.json, else tokenizer_config.json
    chat_template.NAME.jinja    further ones by name, of additional_chat_templates/ and tokenizer_config.json
    generation_config.json      the folder's own, completed by the ids of config.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cupola.errors import ModelError
from cupola.weights import folder_pieces
from cupola.weights.folder_files import read_json, read_json_if_there, read_text
from cupola.weights.storage import write_text
from cupola.weights.templates import DEFAULT, named_templates, write_templates

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
_TEMPLATE, _TEMPLATE_JSON = "chat_template.jinja", "chat_template.json"
_MORE_TEMPLATES = "additional_chat_templates"
_GENERATION = "generation_config.json"
FILE_PATTERNS = (
    *(TOKENIZER, SETTINGS, _TEMPLATE, _TEMPLATE_JSON, f"{_MORE_TEMPLATES}/*.jinja", _GENERATION),
    *folder_pieces.FILES,
)
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def files(folder: Path) -> list[Path]:
    """The files that are read here, those that are there."""
    names = (TOKENIZER, SETTINGS, _TEMPLATE, _TEMPLATE_JSON, _GENERATION, *folder_pieces.FILES)
    more = sorted((folder / _MORE_TEMPLATES).glob("*.jinja"))
    return [path for path in (*(folder / name for name in names), *more) if path.is_file()]


def write(source: Path, config: Mapping[str, object], folder: Path) -> None:
    """Writes the text files of the folder `source` into `folder`.

    Raises:
        ModelError: there is no tokenizer, or a file is malformed.
        UnsupportedError: a SentencePiece model of a kind that Cupola does not know.
        StorageError: the folder cannot be written.
    """
    settings = read_json_if_there(source / SETTINGS)
    write_text(folder / TOKENIZER, _tokenizer(source, settings))
    write_templates(_templates(source, settings), folder)
    given = read_json_if_there(source / _GENERATION)
    for key in _IDS:
        if given.get(key) is None and config.get(key) is not None:
            given[key] = config[key]
    write_text(folder / _GENERATION, json.dumps(given, indent=2) + "\n")


def _tokenizer(source: Path, settings: Mapping[str, object]) -> str:
    if (source / TOKENIZER).is_file():
        return read_text(source / TOKENIZER)
    tokenizer = folder_pieces.build(source, settings)
    if tokenizer is None:
        raise ModelError(
            f"{source} has no {TOKENIZER}, nor a SentencePiece model ({', '.join(folder_pieces.MODELS)})",
            hint="Save the tokenizer once with AutoTokenizer.from_pretrained(...).save_pretrained(...).",
        )
    return tokenizer


def _templates(source: Path, settings: Mapping[str, object]) -> dict[str, str]:
    """Templates by name; a file of its own wins over the same in tokenizer_config.json."""
    found = named_templates(settings.get("chat_template"))
    if (source / _TEMPLATE_JSON).is_file():
        found |= named_templates(read_json(source / _TEMPLATE_JSON).get("chat_template"))
    if (source / _TEMPLATE).is_file():
        found[DEFAULT] = read_text(source / _TEMPLATE)
    return found | {path.stem: read_text(path) for path in sorted((source / _MORE_TEMPLATES).glob("*.jinja"))}
