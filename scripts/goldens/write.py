"""Writes the golden files with torch and transformers; `make goldens` runs it in an environment of its own.

python scripts/goldens/write.py --gguf FILE --tokenizer tokenizer.json --encoder FOLDER --gemma3 FOLDER \
    --family-files FOLDER --out GOLDENS
"""

from __future__ import annotations

import argparse
from pathlib import Path

from checkpoint import load_smollm2
from encoders import write_encoders
from families import write_families
from gemma3 import write_gemma3
from llama_cpp_encoders import write_llama_cpp_encoders
from pieces import write_pieces
from predictions import write_llama_cpp
from smollm2 import write_smollm2
from templates import write_templates
from tiny import write_tiny
from tokenizers import Tokenizer
from transformers.utils import logging

INPUTS = Path(__file__).resolve().parents[2] / "tests" / "goldens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True, help="SmolLM2-135M-Instruct as a GGUF file")
    parser.add_argument("--tokenizer", type=Path, required=True, help="its tokenizer.json, as Cupola writes it")
    parser.add_argument("--encoder", type=Path, required=True, help="all-MiniLM-L6-v2 as a folder")
    parser.add_argument("--gemma3", type=Path, required=True, help="folder with Gemma-3-270M and its tokenizer")
    parser.add_argument("--family-files", type=Path, required=True, help="folder with the families' GGUF files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_tiny(arguments.out)
    write_families(arguments.out)
    write_llama_cpp(arguments.family_files, arguments.out)
    write_encoders(arguments.encoder, INPUTS, arguments.out)
    write_llama_cpp_encoders(arguments.out)
    write_templates(INPUTS / "templates", arguments.out / "templates")
    write_pieces(INPUTS / "pieces", arguments.out / "pieces")
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    write_smollm2(load_smollm2(arguments.gguf), tokenizer, INPUTS, arguments.out)
    write_gemma3(arguments.gemma3, INPUTS, arguments.out)


if __name__ == "__main__":
    main()
