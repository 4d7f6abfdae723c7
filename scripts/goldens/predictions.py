"""Goldens of llama.cpp: what it predicts behind prompts for the GGUF files of tiny models, one file a model.

Keys, values and sums are float32, so that what differs is llama.cpp's own arithmetic: its GELU is a table of float16.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import xllamacpp

from family_models import DECODE, VOCABULARY, llama_cpp_prompt


def predictions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Greedy tokens int32 [n] and the log-probabilities that they were chosen by, float32 [n, VOCABULARY]; n is DECODE,
    or fewer where the model ended its text."""
    server = xllamacpp.Server(_parameters(path))
    answer = server.handle_completions(
        {"prompt": llama_cpp_prompt(path.stem), "max_tokens": DECODE, "logprobs": VOCABULARY, "temperature": 0.0}
    )
    if isinstance(answer, str):
        answer = json.loads(answer)
    if "choices" not in answer:
        raise RuntimeError(f"{path.stem}: {answer}")
    steps = answer["choices"][0]["logprobs"]["content"]
    logprobs = np.empty((len(steps), VOCABULARY), np.float32)
    for row, step in zip(logprobs, steps, strict=True):
        row[[token["id"] for token in step["top_logprobs"]]] = [token["logprob"] for token in step["top_logprobs"]]
    return np.array([step["id"] for step in steps], np.int32), logprobs


def _parameters(path: Path) -> xllamacpp.CommonParams:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.n_gpu_layers = 128, 1, 0
    parameters.cpuparams.n_threads = 2
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.warmup, parameters.fit_params, parameters.verbosity = False, False, -1
    return parameters


def write_llama_cpp(files: Path, out: Path) -> None:
    """Writes out/llama_cpp/NAME.npz (`tokens`, `logprobs`) for each of the GGUF files.

    Raises:
        RuntimeError: llama.cpp loads a file not, or answers with an error.
    """
    (out / "llama_cpp").mkdir(parents=True, exist_ok=True)
    for path in sorted(files.glob("*.gguf")):
        # A process each, because a server that could not load its model takes its process with it.
        command = [sys.executable, __file__, str(path), str(out / "llama_cpp" / f"{path.stem}.npz")]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if result.returncode != 0:
            raise RuntimeError(f"llama.cpp and {path.name}: {result.stderr.strip()[-1000:]}")


if __name__ == "__main__":
    tokens, logprobs = predictions(Path(sys.argv[1]))
    np.savez_compressed(sys.argv[2], tokens=tokens, logprobs=logprobs)
