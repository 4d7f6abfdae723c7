"""Goldens of the default model: logits of a prompt and of forced decode steps, and greedy continuations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedModel

PREFILL, DECODE = 56, 32
TOP, COLUMNS = 64, 256  # logits kept of every row: the largest, and a fixed random choice of columns
GREEDY = 64


def logits_golden(model: PreTrainedModel, ids: list[int], prefill: int, rows: int) -> dict[str, np.ndarray]:
    """Logits at the last `rows` positions of `ids`, thinned out to stay small.

    Returns:
        ids int32 [n], prefill int32 [], columns int32 [COLUMNS], column_logits float32 [rows, COLUMNS],
        top_ids int32 [rows, TOP], top_logits float32 [rows, TOP].
    """
    with torch.inference_mode():
        logits = model(torch.tensor([ids]), logits_to_keep=rows).logits[0].numpy()
    columns = np.sort(np.random.default_rng(7).choice(logits.shape[1], COLUMNS, replace=False))
    top = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    return {
        "ids": np.array(ids, np.int32),
        "prefill": np.array(prefill, np.int32),
        "columns": columns.astype(np.int32),
        "column_logits": logits[:, columns],
        "top_ids": top.astype(np.int32),
        "top_logits": np.take_along_axis(logits, top, axis=1),
    }


def greedy_golden(
    model: PreTrainedModel, tokenizer: Tokenizer, prompts: list[str], *, special: bool, tokens: int
) -> list[dict[str, object]]:
    """So many tokens after every prompt; the end-of-sequence id does not end them.

    `special`: the prompt gets what the tokenizer puts around a text.

    `margin` is the least difference of the best two logits on the way: how far from a tie the text is.
    """
    goldens: list[dict[str, object]] = []
    for prompt in prompts:
        ids = tokenizer.encode(prompt, add_special_tokens=special).ids
        output, margin = _continue(model, ids, tokens)
        text = tokenizer.decode(output, skip_special_tokens=True)
        goldens.append({"prompt": prompt, "prompt_ids": ids, "token_ids": output, "text": text, "margin": margin})
    return goldens


def _continue(model: PreTrainedModel, prompt: list[int], tokens: int) -> tuple[list[int], float]:
    output: list[int] = []
    margin = float("inf")
    step, cache = torch.tensor([prompt]), None
    with torch.inference_mode():
        for _ in range(tokens):
            result = model(step, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            best = torch.topk(result.logits[0, -1], 2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            output.append(int(best.indices[0]))
            step = torch.tensor([output[-1:]])
    return output, round(margin, 6)


def write_smollm2(model: LlamaForCausalLM, tokenizer: Tokenizer, inputs: Path, out: Path) -> None:
    """Writes smollm2_logits.npz and smollm2_greedy.json; the texts come from `inputs`/prompts.json."""
    texts = json.loads((inputs / "prompts.json").read_text())
    ids = tokenizer.encode(texts["logits"], add_special_tokens=False).ids[: PREFILL + DECODE]
    np.savez_compressed(out / "smollm2_logits.npz", **logits_golden(model, ids, PREFILL, len(ids)))
    greedy = greedy_golden(model, tokenizer, texts["greedy"], special=False, tokens=GREEDY)
    (out / "smollm2_greedy.json").write_text(json.dumps(greedy, ensure_ascii=False, indent=1) + "\n")
