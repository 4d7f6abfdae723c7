"""Writes the default model as a Hugging Face folder of float32 weights, dequantized from its GGUF file.

It runs in the environment of the goldens, with `scripts/goldens` on the path.

    hf_folder.py INPUTS OUT    INPUTS is what `scripts/goldens/inputs.py` writes
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from checkpoint import load_smollm2
from transformers import PreTrainedTokenizerFast


def main() -> None:
    inputs, out = map(Path, sys.argv[1:])
    model = load_smollm2(inputs / "model.gguf")
    ids = json.loads((inputs / "generation_config.json").read_text())
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(inputs / "tokenizer.json"))
    for name, token_id in (("bos", ids["bos_token_id"]), ("eos", ids["eos_token_id"][0]), ("pad", ids["pad_token_id"])):
        setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(token_id))
    model.generation_config.eos_token_id = ids["eos_token_id"]
    model.generation_config.pad_token_id = ids["pad_token_id"]
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
