"""Puts what the goldens are made from into a folder: the default model's GGUF file, its tokenizer.json, and an encoder.

It runs in Cupola's own environment, because the files come through Cupola. `model.gguf` and `encoder` are links.
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
    encoder = open_checkpoint("minilm", lambda sentence: print(sentence, file=sys.stderr))
    for name, path in (("model.gguf", checkpoint.path), ("encoder", encoder.path)):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(path)


if __name__ == "__main__":
    main()
