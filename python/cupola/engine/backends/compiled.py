"""The product: the C++ engine on a compiled folder."""

from __future__ import annotations

from pathlib import Path

from cupola.engine import folder as compiled_folder
from cupola.engine import native
from cupola.engine.admission import check_params
from cupola.engine.backends.backend import OpenedModel
from cupola.engine.backends.encoder import open_encoder
from cupola.engine.choice import choose
from cupola.engine.options import EngineOptions
from cupola.engine.sizing import engine_config
from cupola.errors import ModelError, RequestError
from cupola.in_use import hold
from cupola.text.tokenizer import Tokenizer


def open_compiled(folder: Path, options: EngineOptions, reason: str) -> OpenedModel:
    """Load a compiled folder and start its engine.

    Raises:
        ModelError: a file is missing, damaged or malformed.
        IncompatibleError: it was compiled by another version or for another machine.
        UsageError: an option is out of range.
    """
    manifest = choose(compiled_folder.read_manifest(folder))
    if options.verify_files:
        compiled_folder.verify_files(folder, manifest)
    if manifest.task != "generate":
        return open_encoder(folder, manifest, options, reason)
    config = engine_config(manifest, options, device=native.device_room(manifest))
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    chat_template = compiled_folder.read_chat_template(folder, tokenizer, manifest.special_ids)
    default_params = compiled_folder.read_default_params(folder)
    try:
        check_params(default_params, manifest)
    except RequestError as error:
        raise ModelError(
            f"`{folder / 'generation_config.json'}` asks for impossible sampling: {error.message}",
            hint="Correct the file in the checkpoint, and compile it again.",
        ) from error
    model = native.load_compiled(folder, manifest, record_steps=options.record_steps)
    hold(folder, model)
    backend = native.NativeEngine(model, config)
    return OpenedModel("compiled", reason, backend, config, manifest, tokenizer, chat_template, default_params)
