"""Puts what the goldens are made from into a folder: the default model's GGUF file and its tokenizer.json.

It runs in Cupola's own environment, because the file comes through Cupola, and writes `model.gguf` (a link).
"""

from __future__ import annotations

import sys
from pathlib import Path

from cupola.weights.source import DEFAULT_MODEL, open_checkpoint


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = open_checkpoint(DEFAULT_MODEL, lambda sentence: print(sentence, file=sys.stderr))
    checkpoint.write_text_files(folder)
    link = folder / "model.gguf"
    link.unlink(missing_ok=True)
    link.symlink_to(checkpoint.path)


if __name__ == "__main__":
    main()
