"""Embeddings against sentence-transformers on the same cores: writes the table of docs/embeddings.md.

    make bench-embeddings

Both make vectors of the same texts, from strings to numbers, one after the other in every round, with the same number
of threads. sentence-transformers runs in a process and an environment of its own (the goldens'), this file being both
sides: `--serve FOLDER` is the other one, which reads a JSON list of texts a line and writes the seconds that it took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs" / "embeddings.md"
BEGIN, END = "<!-- speed -->", "<!-- /speed -->"
SHORT = "How do I reset my password?"
LONG = "The sea was calm that morning, and the old fisherman rowed out alone, as on every day that allowed it. " * 9

_REST = 0.4  # seconds for which OpenMP's threads may spin on behind a call, on the cores that are ours next

Timer = Callable[[Sequence[str]], float]


def workloads() -> dict[str, list[str]]:
    """Texts by the name of what they are."""

    def many(text: str, count: int) -> list[str]:
        return [f"{number} {text}" for number in range(count)]

    mixed = [f"{number} {LONG[: 40 + 90 * (number % 10)]}" for number in range(32)]
    return {
        "1 short text": [SHORT],
        "1 long text": [LONG],
        "32 short texts": many(SHORT, 32),
        "32 long texts": many(LONG, 32),
        "32 texts of mixed lengths": mixed,
    }


def answer_with_sentence_transformers(folder: str, threads: int) -> None:
    """The other side's process."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(folder, device="cpu")
    for line in sys.stdin:
        texts = json.loads(line)
        begin = time.perf_counter()
        model.encode(texts, batch_size=32, show_progress_bar=False)
        print(json.dumps(time.perf_counter() - begin), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="the interpreter with sentence-transformers")
    parser.add_argument("--folder", default="", help="the model as a folder")
    parser.add_argument("--serve", action="store_true", help="be the other side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quant", help="another scheme than the default")
    arguments = parser.parse_args()
    if arguments.serve:
        answer_with_sentence_transformers(arguments.folder, arguments.threads)
        return
    text = compare(arguments)
    print(text)
    page = DOCS.read_text()
    DOCS.write_text(f"{page.partition(BEGIN)[0]}{BEGIN}\n{text}\n{END}{page.partition(END)[2]}")


def compare(arguments: argparse.Namespace) -> str:
    """The table, as Markdown."""
    from cupola import Engine, EngineOptions
    from cupola.weights.source import open_checkpoint

    folder = arguments.folder or str(open_checkpoint("minilm").path)
    command = [arguments.python, __file__, "--serve", "--folder", folder, "--threads", str(arguments.threads)]
    options = EngineOptions(num_threads=arguments.threads, quant=arguments.quant)
    with (
        Engine("minilm", config=options) as engine,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        assert other.stdin is not None
        assert other.stdout is not None
        writer, reader = other.stdin, other.stdout

        def theirs(texts: Sequence[str]) -> float:
            writer.write(json.dumps(texts) + "\n")
            writer.flush()
            seconds = float(json.loads(reader.readline()))
            time.sleep(_REST)
            return seconds

        def ours(texts: Sequence[str]) -> float:
            begin = time.perf_counter()
            engine.embed(texts, truncate=-1)
            return time.perf_counter() - begin

        rows = [_row(name, texts, ours, theirs, arguments.rounds) for name, texts in workloads().items()]
        scheme = engine.manifest.scheme
        writer.close()
    head = f"| | Cupola ({scheme}), ms | sentence-transformers (f32), ms | |\n|---|---|---|---|"
    return "\n".join([head, *rows])


def _row(name: str, texts: Sequence[str], ours: Timer, theirs: Timer, rounds: int) -> str:
    """Medians of rounds in which both have their turn; the first of each warms up."""
    for timer in (ours, theirs):
        timer(texts)
    times = [(ours(texts), theirs(texts)) for _ in range(rounds)]
    mine, other = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    return f"| {name} | {mine:.1f} | {other:.1f} | {other / mine:.1f} times as fast |"


if __name__ == "__main__":
    main()
