"""Puts what the goldens are made from into a folder: two GGUF files with their texts, an encoder, and a tiny
GGUF file of every family that llama.cpp computes as its folder says.

It runs in Cupola's own environment, because the files come through Cupola. The models are links.
"""

from __future__ import annotations

import sys
from pathlib import Path

from family_gguf import COMPARED, write_family_gguf

from cupola.weights.source import DEFAULT_MODEL, open_checkpoint


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = open_checkpoint(DEFAULT_MODEL, lambda sentence: print(sentence, file=sys.stderr))
    checkpoint.write_text_files(folder)
    encoder = open_checkpoint("minilm", lambda sentence: print(sentence, file=sys.stderr))
    gemma3 = open_checkpoint("gemma3", lambda sentence: print(sentence, file=sys.stderr))
    (folder / "gemma3").mkdir(exist_ok=True)
    gemma3.write_text_files(folder / "gemma3")
    links = {"model.gguf": checkpoint.path, "encoder": encoder.path, "gemma3/model.gguf": gemma3.path}
    for name, path in links.items():
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    (folder / "families").mkdir(exist_ok=True)
    for name in COMPARED:
        write_family_gguf(folder / "families" / f"{name}.gguf", name)


if __name__ == "__main__":
    main()
