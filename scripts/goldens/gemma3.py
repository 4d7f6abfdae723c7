"""Goldens of Gemma-3-270M: logits behind its window of 512 tokens, and greedy continuations.

transformers reads the GGUF file itself, with its own table of names and keys.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from smollm2 import greedy_golden, logits_golden
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

PREFILL, DECODE = 540, 12  # the first layers that see everything see more than the others
ROWS = 40  # positions whose logits are kept: the last ones
GREEDY = 32


def write_gemma3(folder: Path, inputs: Path, out: Path) -> None:
    """Writes gemma3_logits.npz and gemma3_greedy.json.

    Args:
        folder: it holds model.gguf and the tokenizer.json that Cupola makes of it.
        inputs: it holds the texts.
        out: where to write.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode((inputs / "kl_text.txt").read_text()).ids[: PREFILL + DECODE]
    np.savez_compressed(out / "gemma3_logits.npz", **logits_golden(model, ids, PREFILL, ROWS))
    prompts = json.loads((inputs / "prompts.json").read_text())["gemma3_greedy"]
    greedy = greedy_golden(model, tokenizer, prompts, special=True, tokens=GREEDY)
    (out / "gemma3_greedy.json").write_text(json.dumps(greedy, ensure_ascii=False, indent=1) + "\n")
