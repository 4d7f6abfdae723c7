"""Goldens of llama.cpp: the vectors and scores that it makes of texts with the GGUF files of tiny encoders.

It writes a pair as [CLS] query [SEP] document.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import xllamacpp

from tiny_encoder_gguf import GGUF_ENCODERS, llama_cpp_texts, spelled, write_encoder_gguf
from tiny_encoders import TinyEncoder


def vectors(path: Path, tiny: TinyEncoder) -> np.ndarray:
    """float32 [texts, hidden]; of a reranker the scores of documents, [texts]."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.n_gpu_layers = 256, 1, 0
    parameters.n_batch = parameters.n_ubatch = 256
    parameters.cpuparams.n_threads = 2
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.embedding = True
    parameters.warmup, parameters.fit_params, parameters.verbosity = False, False, -1
    if tiny.labels:
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    server = xllamacpp.Server(parameters)
    query, *documents = map(spelled, llama_cpp_texts(tiny))
    if tiny.labels:
        answer = _object(server.handle_rerank({"query": query, "documents": documents}))
        scores = {one["index"]: one["relevance_score"] for one in answer["results"]}
        return np.array([scores[i] for i in range(len(documents))], np.float32)
    answer = _object(server.handle_embeddings({"input": [query, *documents]}))
    return np.array([one["embedding"] for one in sorted(answer["data"], key=lambda one: one["index"])], np.float32)


def _object(answer: object) -> dict[str, list[dict[str, object]]]:
    found = json.loads(answer) if isinstance(answer, str) else answer
    if not isinstance(found, dict) or "error" in found:
        raise RuntimeError(str(found))
    return found


def write_llama_cpp_encoders(out: Path) -> None:
    """Writes llama_cpp_encoders.npz. RuntimeError: llama.cpp loads a file not, or answers with an error."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for tiny in GGUF_ENCODERS:
            path = Path(folder) / f"{tiny.name}.npy"
            # A process each, because a server that could not load its model takes its process with it.
            command = [sys.executable, __file__, tiny.name, str(path)]
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
            if result.returncode != 0:
                raise RuntimeError(f"llama.cpp and {tiny.name}: {result.stderr.strip()[-1000:]}")
            found[tiny.name] = np.load(path)
    np.savez_compressed(out / "llama_cpp_encoders.npz", **found)


if __name__ == "__main__":
    chosen = next(tiny for tiny in GGUF_ENCODERS if tiny.name == sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        write_encoder_gguf(Path(scratch) / "m.gguf", chosen)
        np.save(sys.argv[2], vectors(Path(scratch) / "m.gguf", chosen))
