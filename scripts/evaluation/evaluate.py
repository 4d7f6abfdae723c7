"""Runs lm-eval's tasks of this folder on one backend, and writes scores and every single answer as JSON.

It runs in the environment of the goldens, which has torch, transformers and lm-eval. Nothing is downloaded: data
and models are local files.

    evaluate.py OUT hf FOLDER            lm-eval's own backend, on a Hugging Face folder
    evaluate.py OUT api URL TOKENIZER    a server's /v1/completions; TOKENIZER is a folder, or "remote": its own
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

TASKS = ("cupola_choice", "cupola_cloze", "cupola_prose")
HERE = Path(__file__).parent / "tasks"


def model_of(kind: str, *where: str) -> tuple[str, dict[str, object]]:
    """lm-eval's name of the backend, and its arguments."""
    if kind == "hf":
        return "hf", {"pretrained": where[0], "dtype": "float32", "device": "cpu", "batch_size": 1}
    url, tokenizer = where
    arguments: dict[str, object] = {
        "base_url": f"{url}/v1/completions",
        "model": "model",
        "batch_size": 4,
        "max_length": 2048,
        "max_retries": 1,
    }
    if tokenizer != "remote":
        arguments |= {"tokenizer": tokenizer, "tokenizer_backend": "huggingface"}
    return "local-completions", arguments


def evaluate(backend: str, arguments: Mapping[str, object]) -> dict[str, object]:
    """The scores of every task, and the raw answers to each of its documents."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    os.chdir(HERE)  # the tasks name their data relatively
    result = lm_eval.simple_evaluate(
        model=backend,
        model_args=dict(arguments),
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(HERE), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    scores = {
        task: {name: value for name, value in found.items() if isinstance(value, float)}
        for task, found in result["results"].items()
    }
    answers = {
        task: [sample["resps"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]
        for task, samples in result["samples"].items()
    }
    return {"scores": scores, "answers": answers}


def main() -> None:
    out, kind, *where = sys.argv[1:]
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    backend, arguments = model_of(kind, *(str(Path(part).resolve()) if Path(part).is_dir() else part for part in where))
    path = Path(out).resolve()
    path.write_text(json.dumps(evaluate(backend, arguments), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
