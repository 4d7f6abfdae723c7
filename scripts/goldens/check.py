"""Compares freshly written golden files with those in the repository; exit code 1 when they differ.

    python scripts/goldens/check.py tests/goldens build/goldens/new

Token ids, texts and shapes must be equal. Logits may differ by TOLERANCE: another processor's matrix kernels add in
another order; one thread with SSE4 alone differs by 6e-5 from two with AVX-512. The tests themselves allow twice as
much.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

TOLERANCE = 5e-4
_APPROXIMATE = {"margin"}


def main() -> int:
    committed, fresh = Path(sys.argv[1]), Path(sys.argv[2])
    problems: list[str] = []
    for name in (
        *(
            "tiny_logits.npz",
            "smollm2_logits.npz",
            "gemma3_logits.npz",
            "tiny_encoders.npz",
            "llama_cpp_encoders.npz",
            "embeddings.npz",
        ),
        *(name for folder in ("families", "llama_cpp") for name in _names(committed, f"{folder}/*.npz")),
    ):
        problems += _compare_arrays(name, committed / name, fresh / name)
    for folder in ("families", "llama_cpp"):
        if _names(committed, f"{folder}/*") != _names(fresh, f"{folder}/*"):
            problems.append(f"{folder}: there are others now")
    if (committed / "pieces/ids.json").read_text() != (fresh / "pieces/ids.json").read_text():
        problems.append("pieces/ids.json: SentencePiece gives other ids now")
    for name in _names(committed, "families/*.json"):
        if (committed / name).read_text() != (fresh / name).read_text():
            problems.append(f"{name}: transformers gives this family other tensors now")
    problems += _compare_greedy("smollm2_greedy.json", committed, fresh)
    problems += _compare_greedy("gemma3_greedy.json", committed, fresh)
    problems += _compare_renderings("templates/rendered.json", committed, fresh)
    for problem in problems:
        print(f"differs: {problem}")
    if not problems:
        print(f"goldens: the same as transformers writes now (logits within {TOLERANCE})")
    return 1 if problems else 0


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))


def _compare_arrays(name: str, old_path: Path, new_path: Path) -> list[str]:
    old, new = np.load(old_path), np.load(new_path)
    if set(old) != set(new):
        return [f"{name}: holds {sorted(old)}, now {sorted(new)}"]
    problems = []
    for key in sorted(old):
        if key == "top_ids":  # which of two close logits comes first may differ; their values are compared
            continue
        a, b = old[key], new[key]
        if a.shape != b.shape:
            problems.append(f"{name}: {key} has shape {a.shape}, now {b.shape}")
            continue
        difference = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
        print(f"{name}: {key}: max difference {difference:.2e}")
        if difference > (TOLERANCE if a.dtype.kind == "f" else 0):
            problems.append(f"{name}: {key} by {difference:.2e}")
    return problems


def _compare_greedy(name: str, committed: Path, fresh: Path) -> list[str]:
    old, new = json.loads((committed / name).read_text()), json.loads((fresh / name).read_text())
    if len(old) != len(new):
        return [f"{name}: {len(old)} prompts, now {len(new)}"]
    return [
        f"{name}: {key} of prompt {i}"
        for i, (a, b) in enumerate(zip(old, new, strict=True))
        for key in a
        if key not in _APPROXIMATE and a[key] != b.get(key)
    ]


def _compare_renderings(name: str, committed: Path, fresh: Path) -> list[str]:
    old, new = json.loads((committed / name).read_text()), json.loads((fresh / name).read_text())
    return [
        f"{name}: {template} of {conversation!r}"
        for template in sorted({*old, *new})
        for conversation in sorted({*old.get(template, {}), *new.get(template, {})})
        if old.get(template, {}).get(conversation) != new.get(template, {}).get(conversation)
    ]


if __name__ == "__main__":
    sys.exit(main())
