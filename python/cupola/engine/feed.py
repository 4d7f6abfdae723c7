"""A text through a compiled model, without the engine: every token's logits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from cupola.engine.choice import choose
from cupola.engine.folder import read_manifest
from cupola.engine.native_model import load_compiled
from cupola.errors import UsageError

_CHUNK = 64  # tokens a step: a step's logits of a large vocabulary are 64 MiB


class Feed:
    """One sequence at a time through the model of a compiled folder.

    Raises:
        ModelError, IncompatibleError: the folder cannot be loaded.
        UsageError: the model does not predict tokens.
    """

    def __init__(self, folder: Path, context: int) -> None:
        manifest = choose(read_manifest(folder))
        if manifest.task != "generate":
            raise UsageError(f"`{manifest.name}` predicts no tokens", hint="name a model that generates text")
        self.manifest, self.context = manifest, min(context, manifest.shape.max_context)
        self._chunk = min(_CHUNK, manifest.limits.max_batch, manifest.limits.max_step_tokens)
        self._model = load_compiled(folder, manifest)
        self._pages = np.arange(-(-self.context // manifest.kv_cache.page_size), dtype=np.int32)
        self._model.alloc_kv_cache(len(self._pages))

    def logits(self, ids: np.ndarray) -> Iterator[np.ndarray]:
        """float32 [n, vocabulary], pieces of the rows of a sequence of at most `context` tokens, in order."""
        page_size = self.manifest.kv_cache.page_size
        for start in range(0, len(ids), self._chunk):
            positions = np.arange(start, min(start + self._chunk, len(ids)))
            length = int(positions[-1]) + 1
            used = self._pages[: -(-length // page_size)]
            yield self._model.forward(
                ids=ids[positions],
                positions=positions,
                slots=positions,  # pages lie in order
                q_indptr=np.array([0, len(positions)]),
                page_indptr=np.array([0, len(used)]),
                page_ids=used,
                kv_len=np.array([length]),
                out_rows=np.arange(len(positions)),
            )


def sequences(folder: Path, text: str, context: int) -> list[np.ndarray]:
    """A text's tokens, cut into sequences of at most `context`, each of which begins as the tokenizer begins a prompt.

    A last one of less than two tokens of its own is left out.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin = tokenizer.encode("", add_special_tokens=True).ids
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    room = context - len(begin)
    cut = [begin + ids[at : at + room] for at in range(0, len(ids), room)]
    return [np.array(one, np.int32) for one in cut if len(one) - len(begin) >= 2]
