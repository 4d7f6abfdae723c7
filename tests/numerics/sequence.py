"""One or more sequences run step by step through a compiled library, without the engine: the library's own truth.

Pages are dealt out in a scrambled order, so that a kernel that ignores its page table cannot pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cupola.engine.native import NativeModel, load_compiled
from cupola.manifest import Manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a compiled folder."""
    return Manifest.model_validate_json((folder / "model.json").read_text())


class Sequences:
    """`count` sequences of at most `max_tokens` tokens each in one KV cache.

    The pages belong to the model, so there is one such object a model at a time.
    """

    def __init__(self, folder: Path, *, count: int = 1, max_tokens: int = 128) -> None:
        self.manifest = read_manifest(folder)
        self.model: NativeModel = load_compiled(folder, self.manifest)
        self._page_size = self.manifest.kv_cache.page_size
        pages = -(-max_tokens // self._page_size)
        self.model.alloc_kv_cache(count * pages)
        order = np.random.default_rng(5).permutation(count * pages).astype(np.int32)
        self._pages = order.reshape(count, pages)
        self.lengths = [0] * count

    def step(self, tokens: dict[int, Sequence[int]]) -> dict[int, np.ndarray]:
        """One `forward` over new tokens of some sequences.

        Args:
            tokens: sequence -> its next token ids.

        Returns:
            sequence -> float32 logits [its new tokens, vocab].
        """
        positions, slots, used = [], [], []
        for sequence, ids in tokens.items():
            start = self.lengths[sequence]
            where = np.arange(start, start + len(ids))
            table = self._pages[sequence]
            positions.append(where)
            slots.append(table[where // self._page_size] * self._page_size + where % self._page_size)
            self.lengths[sequence] = start + len(ids)
            used.append(table[: -(-self.lengths[sequence] // self._page_size)])
        counts = [len(ids) for ids in tokens.values()]
        logits = self.model.forward(
            ids=np.concatenate([np.asarray(ids, np.int32) for ids in tokens.values()]),
            positions=np.concatenate(positions),
            slots=np.concatenate(slots),
            q_indptr=np.cumsum([0, *counts]),
            page_indptr=np.cumsum([0, *(len(pages) for pages in used)]),
            page_ids=np.concatenate(used),
            kv_len=np.array([self.lengths[sequence] for sequence in tokens]),
            out_rows=np.arange(sum(counts)),
        )
        return dict(zip(tokens, np.split(logits, np.cumsum(counts)[:-1]), strict=True))

    def run(self, ids: Sequence[int], chunk: int, sequence: int = 0) -> np.ndarray:
        """Feeds `ids` in chunks; logits float32 [len(ids), vocab]."""
        rows = [self.step({sequence: ids[at : at + chunk]})[sequence] for at in range(0, len(ids), chunk)]
        return np.concatenate(rows)

    def restart(self) -> None:
        """Forgets every sequence; the pages keep their stale contents."""
        self.lengths = [0] * len(self.lengths)
