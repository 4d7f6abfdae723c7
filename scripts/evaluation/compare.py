"""lm-eval on a server and on torch, on the same float32 weights: the same scores and the same numbers behind them.

Three tasks of our own (`tasks/`): multiple choice, greedy generation, and the perplexity of texts. They run through
lm-eval's backend for transformers, and twice through `/v1/completions`: with the tokenizer as a local file, and with
the server's own (`/tokenizer_info`, `/tokenize`, `/detokenize`).

It runs in Cupola's environment with `tests` on the path, and starts lm-eval in the other one; `make lm-eval` knows
both.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from compiled import compiled_folder
from serving import ServerProcess

HERE = Path(__file__).parent
SUM_TOLERANCE = 2e-3  # of the log-probability of a text, in nats
SCORE_TOLERANCE = 1e-3  # relative, of perplexities; accuracies have to be the same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluator", type=Path, required=True, help="Python with torch, transformers and lm-eval")
    parser.add_argument("--inputs", type=Path, required=True, help="what scripts/goldens/inputs.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and all results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.out / "checkpoint"

    def evaluate(name: str, *backend: str) -> dict[str, dict[str, object]]:
        out = arguments.out / f"{name}.json"
        run(arguments.evaluator, "evaluate.py", str(out), *backend)
        found: dict[str, dict[str, object]] = json.loads(out.read_text())
        return found

    run(arguments.evaluator, "hf_folder.py", str(arguments.inputs), str(checkpoint))
    expected = evaluate("torch", "hf", str(checkpoint))
    folder = compiled_folder("smollm2", "f32")
    with ServerProcess(str(folder), "--served-model-name", "model", "--log-level", "warning") as server:
        found = {
            "a local tokenizer": evaluate("local", "api", server.url, str(checkpoint)),
            "the server's tokenizer": evaluate("remote", "api", server.url, "remote"),
        }
    print(table(expected["scores"], {name: result["scores"] for name, result in found.items()}))
    wrong = [f"{name}: {what}" for name, result in found.items() for what in differences(expected, result)]
    if wrong:
        sys.exit("error: lm-eval finds the server different from torch:\n" + "\n".join(wrong))
    worst = max(largest_gap(expected["answers"], result["answers"]) for result in found.values())
    print(f"the same everywhere; the largest difference of a text's log-probability is {worst:.1e}")


def run(python: Path, script: str, *words: str) -> None:
    """One of the scripts beside this one, in the other environment; what it prints is shown only if it fails."""
    paths = {"PYTHONPATH": str(HERE.parent / "goldens")}
    done = subprocess.run(
        [str(python.absolute()), str(HERE / script), *words],
        env=os.environ | paths,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"error: {script} failed:\n{done.stdout[-4000:]}")


def differences(expected: dict[str, dict[str, object]], found: dict[str, dict[str, object]]) -> Iterator[str]:
    """Where two results are not the same, in words."""
    for task, scores in expected["scores"].items():
        for name, score in scores.items():
            other = found["scores"][task][name]
            tolerance = SCORE_TOLERANCE * abs(score) if "perplexity" in name or "bits" in name else 0.0
            if not abs(other - score) <= tolerance:
                yield f"{task} {name} is {other}, not {score}"
    for task, place, one, other in pairs(expected["answers"], found["answers"]):
        if isinstance(one, str | bool) and one != other:
            yield f"{task} {place} is {other!r}, not {one!r}"
        if isinstance(one, float) and not math.isclose(one, other, rel_tol=0, abs_tol=SUM_TOLERANCE):
            yield f"{task} {place} is {other}, not {one}"


def pairs(one: object, other: object, place: str = "") -> Iterator[tuple[str, str, object, object]]:
    """(task, place, value, value) for all that two trees of answers hold at the same places."""
    if isinstance(one, dict):
        for task in one:
            yield from ((task, where, a, b) for _, where, a, b in pairs(one[task], other[task]))
    elif isinstance(one, list):
        assert len(one) == len(other), f"{place}: {len(other)} answers, not {len(one)}"
        for index, inner in enumerate(one):
            yield from pairs(inner, other[index], f"{place}[{index}]")
    else:
        yield "", place, one, other


def largest_gap(one: object, other: object) -> float:
    """Between two log-probabilities of the same text."""
    return max(abs(a - b) for _, _, a, b in pairs(one, other) if isinstance(a, float))


def table(expected: dict[str, dict[str, float]], found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The scores side by side."""
    lines = [f"{'':<32}{'torch':>14}" + "".join(f"{name:>26}" for name in found)]
    for task, scores in expected.items():
        for name, score in scores.items():
            values = "".join(f"{result[task][name]:>26.6f}" for result in found.values())
            lines.append(f"{task + ' ' + name.removesuffix(',none'):<32}{score:>14.6f}{values}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
