"""Runs a compiled folder on whatever machine this is: which library is chosen, and what `forward` and the engine make.

    python scripts/device_checks/forward.py FOLDER [LIBRARY]      prints one JSON object, logits in full

It needs NumPy, pydantic, the run-time packages of TVM and the source of Cupola: an emulated machine needs no more.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from cupola.engine.choice import Machine, choose
from cupola.engine.native_model import NativeModel, load_compiled
from cupola.manifest import FILE_NAME, Manifest

PROMPTS = (tuple(range(3, 40)), (7, 7, 11), (1,))  # more rows than a tile, an odd number of them, and a single one
GREEDY = 6  # tokens that are decoded one after the other


def manifest_of(folder: Path, library: str | None) -> Manifest:
    """The folder's manifest, with one library only if its file is named."""
    manifest = Manifest.model_validate_json((folder / FILE_NAME).read_text(encoding="utf-8"))
    if library is None:
        return manifest
    return manifest.model_copy(update={"libraries": tuple(o for o in manifest.libraries if o.file == library)})


def logits_of(model: NativeModel, manifest: Manifest) -> list[list[float]]:
    """All logits of the prompts in one step, then of greedy decoding of all of them together."""
    page, vocab = manifest.kv_cache.page_size, manifest.shape.vocab_size
    sequences = [[token % vocab for token in prompt] for prompt in PROMPTS]
    per_sequence = -(-(max(map(len, sequences)) + GREEDY) // page)
    model.alloc_kv_cache(per_sequence * len(sequences))
    done = [0] * len(sequences)
    rows: list[list[float]] = []
    for _ in range(1 + GREEDY):
        logits = _step(model, sequences, done, page, per_sequence)
        rows += logits.tolist()
        ends = np.cumsum([len(s) - d for s, d in zip(sequences, done, strict=True)]) - 1
        done = [len(sequence) for sequence in sequences]
        for sequence, end in zip(sequences, ends, strict=True):
            sequence.append(int(logits[end].argmax()))
    return rows


def _step(model: NativeModel, sequences: list[list[int]], done: list[int], page: int, per_sequence: int) -> np.ndarray:
    """One forward over everything that is not done; logits of every row. Sequence s owns neighbouring pages."""
    places = [(s, p) for s, sequence in enumerate(sequences) for p in range(done[s], len(sequence))]
    counts = [len(sequence) - first for sequence, first in zip(sequences, done, strict=True)]
    pages = [-(-len(sequence) // page) for sequence in sequences]
    return model.forward(
        ids=np.array([sequences[s][p] for s, p in places]),
        positions=np.array([p for _, p in places]),
        slots=np.array([s * per_sequence * page + p for s, p in places]),
        q_indptr=np.cumsum([0, *counts]),
        page_indptr=np.cumsum([0, *pages]),
        page_ids=np.array([s * per_sequence + k for s, count in enumerate(pages) for k in range(count)]),
        kv_len=np.array([len(sequence) for sequence in sequences]),
        out_rows=np.arange(len(places)),
    )


def main() -> None:
    folder = Path(sys.argv[1])
    manifest = manifest_of(folder, sys.argv[2] if len(sys.argv) > 2 else None)
    machine = Machine.here()
    chosen = choose(manifest, machine)
    begin = time.perf_counter()
    logits = logits_of(load_compiled(folder, chosen), chosen)
    print(
        json.dumps(
            {
                "machine": machine.name,
                "features": sorted(machine.flags),
                "library": chosen.library.file,
                "seconds": time.perf_counter() - begin,
                "logits": logits,
            }
        )
    )


if __name__ == "__main__":
    main()
