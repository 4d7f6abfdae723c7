"""transformers and torch, in a process of their own: the same shape with random weights, in float16.

Decodes are compiled with CUDA graphs (`mode="reduce-overhead"`) over a static cache; prompts run as transformers runs
them. Reads one JSON object a line from standard input and answers each with one; it needs nothing of Cupola.

    {"shape": CONFIG, "context": 128}     first; answers {"ready": NAME} or {"error": WHY}
    {"matrix": 8192}                      -> {"flops": ...}
    {"kind": "decode", "count": 8, "steps": 128} or {"kind": "prefill", "count": 512}    -> {"seconds": ...}
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


class Worker:
    """A model of transformers on a device."""

    def __init__(self, torch: Any, config: dict[str, object], context: int, device: str) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        self._torch, self._context, self._device = torch, context, device
        self._dtype = torch.float16 if device == "cuda" else torch.float32
        known = AutoConfig.for_model(**config)
        with torch.device(device):
            torch.set_default_dtype(self._dtype)
            self._model = AutoModelForCausalLM.from_config(known, dtype=self._dtype).eval()
        self._config = known
        self._step = self._model.forward
        if device == "cuda":
            self._step = torch.compile(self._model.forward, mode="reduce-overhead", fullgraph=True)

    def matrix(self, size: int) -> float:
        """Flops of a product."""
        torch = self._torch
        a, b = (torch.randn(size, size, device=self._device, dtype=self._dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        self._wait()
        begin = time.perf_counter()
        for _ in range(10):
            a @ b
        self._wait()
        return float(20 * size**3 / (time.perf_counter() - begin))

    def prefill(self, count: int) -> float:
        """Seconds up to a prompt's first token."""
        ids = self._torch.randint(0, self._config.vocab_size, (1, count), device=self._device)
        self._wait()
        begin = time.perf_counter()
        with self._torch.inference_mode():
            self._model(ids, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1)
        self._wait()
        return time.perf_counter() - begin

    def decode(self, count: int, steps: int) -> float:
        """Seconds of one step of `count` streams."""
        from transformers import StaticCache

        torch = self._torch
        cache = StaticCache(config=self._config, max_cache_len=self._context + steps + 8)
        with torch.inference_mode():
            prompt = torch.randint(0, self._config.vocab_size, (count, self._context), device=self._device)
            places = torch.arange(self._context, device=self._device)
            out = self._model(prompt, past_key_values=cache, cache_position=places, use_cache=True, logits_to_keep=1)
            token, place = out.logits[:, -1:].argmax(-1), places[-1:] + 1
            for step in range(steps + 4):
                if step == 4:  # what is compiled and recorded in the first ones does not count
                    self._wait()
                    begin = time.perf_counter()
                if self._device == "cuda":
                    torch.compiler.cudagraph_mark_step_begin()
                out = self._step(token, past_key_values=cache, cache_position=place, use_cache=True)
                token, place = out.logits[:, -1:].argmax(-1).clone(), place + 1
            self._wait()
        return (time.perf_counter() - begin) / steps

    def _wait(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


def main() -> None:
    """Answers until standard input ends."""
    first = json.loads(sys.stdin.readline())
    try:
        import torch

        device = first.get("device", "cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("torch finds no GPU")
        worker = Worker(torch, first["shape"], first["context"], device)
        _answer({"ready": f"transformers, torch {torch.__version__}"})
    except Exception as error:  # whatever is missing is said to the other side
        _answer({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
        return
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "matrix" in asked:
                _answer({"flops": worker.matrix(asked["matrix"])})
            elif asked["kind"] == "decode":
                _answer({"seconds": worker.decode(asked["count"], asked["steps"])})
            else:
                _answer({"seconds": worker.prefill(asked["count"])})
        except Exception as error:  # no room for one case does not end the others
            _answer({"error": f"{type(error).__name__}: {error}".splitlines()[0]})


def _answer(value: dict[str, object]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
