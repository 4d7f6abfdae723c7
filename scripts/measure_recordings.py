"""Measure what a decode costs the host with and without recordings, on the device that a folder was compiled for.

    cupola compile MODEL --target webgpu -o FOLDER
    python scripts/measure_recordings.py FOLDER [BATCH]

Processor time of the thread that calls the model, its download of logits included; what drivers do on threads of their
own is not in it. The least of several rounds by turns, each a median. Both ways must give the same logits.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cupola.engine.native import NativeModel, load_compiled
from cupola.manifest import Manifest

ROUNDS = 3
STEPS = 40
PAGES = 8  # of a sequence


@dataclass(frozen=True)
class Round:
    """Milliseconds of a step, and the logits of the last one."""

    processor: float
    wall: float
    logits: np.ndarray


def measure(model: NativeModel, batch: int) -> Round:
    """Decodes of `batch` sequences from their first token on."""
    processor, wall = [], []
    for position in range(STEPS):
        step = arguments(model.page_size, batch, position)
        begin, begin_processor = time.perf_counter(), time.thread_time()
        logits = model.forward(**step)
        processor.append(time.thread_time() - begin_processor)
        wall.append(time.perf_counter() - begin)
    return Round(1e3 * float(np.median(processor)), 1e3 * float(np.median(wall)), logits)


def arguments(page_size: int, batch: int, position: int) -> dict[str, np.ndarray]:
    """One token for each of the sequences, which have PAGES pages each."""
    sequences, pages = np.arange(batch), position // page_size + 1
    return {
        "ids": sequences + 5,
        "positions": np.full(batch, position),
        "slots": (sequences * PAGES + pages - 1) * page_size + position % page_size,
        "q_indptr": np.arange(batch + 1),
        "page_indptr": np.arange(batch + 1) * pages,
        "page_ids": (sequences[:, None] * PAGES + np.arange(pages)).ravel(),
        "kv_len": np.full(batch, position + 1),
        "out_rows": sequences,
    }


def main() -> None:
    folder, batch = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    manifest = Manifest.model_validate_json((folder / "model.json").read_text())
    models = {record: load_compiled(folder, manifest, record_steps=record) for record in (False, True)}
    for model in models.values():
        model.alloc_kv_cache(PAGES * batch)
    rounds: dict[bool, list[Round]] = {record: [] for record in models}
    for _ in range(ROUNDS):
        for record, model in models.items():
            rounds[record].append(measure(model, batch))
    for record, found in rounds.items():
        if not np.array_equal(found[-1].logits, rounds[False][-1].logits):
            raise SystemExit("logits differ")
        processor, wall = min(one.processor for one in found), min(one.wall for one in found)
        print(f"{'replayed' if record else 'called':9} {processor:.2f} ms of the host, {wall:.2f} ms in all")
    print(f"steps: {models[True].step_counts()[0]}")


if __name__ == "__main__":
    main()
