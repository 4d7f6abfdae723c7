"""The compiled folder as the engine reads it: manifest, hashes, tokenizer, chat template, sampling defaults."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from cupola.engine.request import SamplingParams
from cupola.errors import IncompatibleError, ModelError
from cupola.manifest import FILE_NAME, FORMAT_VERSION, Manifest, SpecialIds
from cupola.text.chat_template import ChatTemplate
from cupola.text.tokenizer import Tokenizer

_AGAIN = "Compile the model again: `cupola compile MODEL`."


def is_compiled_folder(path: Path) -> bool:
    """Whether a path is a folder that `cupola compile` wrote."""
    return (path / FILE_NAME).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a compiled folder.

    Raises:
        ModelError: it is missing or malformed.
        IncompatibleError: it is of another format version.
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
        version = json.loads(text).get("format_version")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"`{path}` cannot be read: {error}", hint=_AGAIN) from error
    if version != FORMAT_VERSION:
        raise IncompatibleError(
            f"`{path}` has format version {version}, but this Cupola reads version {FORMAT_VERSION}", hint=_AGAIN
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"`{path}` is not a manifest: field `{field}`: {first['msg']}", hint=_AGAIN) from error


def verify_files(folder: Path, manifest: Manifest) -> None:
    """ModelError unless every file that the manifest lists is there and has its hash."""
    with ThreadPoolExecutor() as pool:
        for name, actual in zip(manifest.files, pool.map(_sha256, (folder / n for n in manifest.files)), strict=True):
            if actual is None:
                raise ModelError(f"The compiled model `{folder}` lacks its file `{name}`", hint=_AGAIN)
            if actual != manifest.files[name]:
                raise ModelError(
                    f"`{folder / name}` is damaged or was changed: its sha256 is not the one in {FILE_NAME}",
                    hint=_AGAIN,
                )


def read_chat_template(folder: Path, tokenizer: Tokenizer, special_ids: SpecialIds) -> ChatTemplate | None:
    """The folder's chat template; None if it has none. ModelError: it is not valid."""
    usual, tool_use = (
        _text_if_there(folder / name) for name in ("chat_template.jinja", "chat_template.tool_use.jinja")
    )
    source = usual or tool_use
    return None if source is None else ChatTemplate(source, special_token_names(tokenizer, special_ids), tool_use)


def _text_if_there(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"`{path}` cannot be read: {error}", hint=_AGAIN) from error


def special_token_names(tokenizer: Tokenizer, special_ids: SpecialIds) -> dict[str, str]:
    """The variables by which chat templates know special tokens, such as bos_token."""
    ids = {
        "bos_token": special_ids.bos,
        "eos_token": special_ids.eos[0] if special_ids.eos else None,
        "pad_token": special_ids.pad,
    }
    names = {name: tokenizer.token(token_id) for name, token_id in ids.items() if token_id is not None}
    return {name: token for name, token in names.items() if token is not None}


def read_default_params(folder: Path) -> SamplingParams:
    """The sampling that the model's makers recommend, from generation_config.json; fields it lacks are Cupola's."""
    path = folder / "generation_config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return SamplingParams()
    except (OSError, ValueError) as error:
        raise ModelError(f"`{path}` cannot be read: {error}", hint=_AGAIN) from error
    if not isinstance(content, dict):
        raise ModelError(f"`{path}` is not a JSON object", hint=_AGAIN)

    def number(key: str, default: float) -> float:
        value = content.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default

    base = SamplingParams()
    return SamplingParams(
        temperature=number("temperature", base.temperature),
        top_k=max(0, int(number("top_k", base.top_k))),
        top_p=number("top_p", base.top_p),
        min_p=number("min_p", base.min_p),
        repetition_penalty=number("repetition_penalty", base.repetition_penalty),
    )


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"`{path}` cannot be read: {error}", hint="Check the file's permissions.") from error
