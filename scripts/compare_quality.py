"""How far quantized files drift from the float32 original in Cupola and in llama.cpp, on the same file and text.

The original is a GGUF model dequantized to float32; llama.cpp computes its predictions once, with float32 pages. Then
each file (the model itself, and the model requantized) runs in both, as their users get them, and is compared with
those predictions in chunks of 512 tokens of which the latter half counts: llama.cpp's own measure, taken with its own
`llama-perplexity`. What a type loses is the same for both; the rest is how they compute. The second table shows that
rest alone: the same file against its own weights in float32.

    PYTHONPATH=tests python scripts/compare_quality.py --llama FOLDER_OF_LLAMA_PERPLEXITY
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compiled import compiled_folder
from cupola.weights.source import open_checkpoint
from numerics.divergence import log_probabilities
from numerics.requantize import Type, requantize
from numerics.sequence import Sequences

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (ROOT / "tests" / "goldens" / "kl_text.txt", ROOT / "LICENSE")
CONTEXT = 512
FLOAT_PAGES = ("-ctk", "f32", "-ctv", "f32")
HEADER = """\
| file | KL, Cupola | KL, llama.cpp | best, Cupola | best, llama.cpp | ppl, Cupola | ppl, llama.cpp |
|---|---|---|---|---|---|---|"""
LEAST = -16.0  # log-probabilities below this are cut off in the base, and left out of the sum


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one file in one engine: mean KL divergence in nats a token, share of same best tokens, perplexity."""

    mean_kl: float
    same_best_token: float
    perplexity: float


class Base:
    """The predictions of `llama-perplexity --kl-divergence-base`: text tokens, and log-probabilities in 16 bits.

    The file is "_logits_", three int32 (context, vocabulary, chunks), the tokens, and for every token of the latter
    half of each chunk but its last a float32 scale and minimum, and uint16[vocabulary, made even].
    """

    def __init__(self, path: Path) -> None:
        raw = np.memmap(path, np.uint16, "r")
        context, self.vocabulary, chunks = (int(value) for value in raw[4:10].view(np.int32))
        tokens = 10 + 2 * context * chunks
        self.tokens = raw[10:tokens].view(np.int32).reshape(chunks, context)
        self._rows = raw[tokens:].reshape(chunks, context - 1 - context // 2, -1)
        self.scored = slice(context // 2, context - 1)

    def log_probabilities(self, chunk: int) -> np.ndarray:
        """float64 [scored tokens, vocabulary] of one chunk."""
        factors = np.ascontiguousarray(self._rows[chunk, :, :4]).view(np.float32).astype(np.float64)
        return self._rows[chunk, :, 4 : 4 + self.vocabulary] * factors[:, :1] + factors[:, 1:]


class Llama:
    """llama.cpp's own measurement."""

    def __init__(self, folder: Path, text: Path) -> None:
        self._command = [str(folder / "llama-perplexity"), "-f", str(text), "-c", str(CONTEXT), "-t", "2"]
        self._environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}

    def write_base(self, model: Path, base: Path) -> Base:
        self._run(model, base, *FLOAT_PAGES)
        return Base(base)

    def measure(self, model: Path, base: Path) -> Quality:
        output = self._run(model, base, "--kl-divergence")

        def figure(name: str) -> float:
            match = re.search(rf"{name}\s*:\s*([\d.]+)", output)
            if match is None:
                raise ValueError(f"llama-perplexity printed no {name!r}:\n{output[-2000:]}")
            return float(match[1])

        return Quality(figure("Mean +KLD"), figure("Same top p") / 100, figure(r"Mean PPL\(Q\)"))

    def _run(self, model: Path, base: Path, *options: str) -> str:
        command = [*self._command, "-m", str(model), "--kl-divergence-base", str(base), *options]
        result = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True)
        return result.stdout + result.stderr


def measure(folder: Path, base: Base) -> Quality:
    """The same figures of a compiled folder."""
    sequences = Sequences(folder, max_tokens=CONTEXT)
    divergences, same_best, surprises = [], [], []
    for chunk, tokens in enumerate(base.tokens):
        sequences.restart()
        q = log_probabilities(sequences.run(tokens.tolist(), CONTEXT // 8)[base.scored, : base.vocabulary])
        p = base.log_probabilities(chunk)
        divergences.append(np.where(p > LEAST, np.exp(p) * (p - q), 0).sum(axis=1))
        same_best.append(p.argmax(axis=1) == q.argmax(axis=1))
        following = tokens[base.scored.start + 1 : base.scored.stop + 1]
        surprises.append(-q[np.arange(len(q)), following])
    perplexity = float(np.exp(np.concatenate(surprises).mean()))
    return Quality(float(np.concatenate(divergences).mean()), float(np.concatenate(same_best).mean()), perplexity)


def row(name: str, ours: Quality, theirs: Quality) -> str:
    """One row of a Markdown table."""
    kl = f"{ours.mean_kl:.5f} | {theirs.mean_kl:.5f}"
    best = f"{ours.same_best_token:.1%} | {theirs.same_best_token:.1%}"
    return f"| {name} | {kl} | {best} | {ours.perplexity:.3f} | {theirs.perplexity:.3f} |"


def compare(model: Path, kinds: Sequence[Type], llama: Llama, work: Path) -> None:
    """Prints both tables."""
    original, base_file = work / "original.gguf", work / "original.kld"
    requantize(model, Type.F32, original, embeddings=Type.F32)
    base = llama.write_base(original, base_file)
    print(f"{base.tokens.shape[0]} chunks of {CONTEXT} tokens of {model.name}\n")
    print(HEADER, flush=True)
    exact = compiled_folder(str(original), "f32")
    print(row("float32", measure(exact, base), llama.measure(original, base_file)), flush=True)
    own = []
    for file in [model, *(work / f"{kind.name}.gguf" for kind in kinds)]:
        if file != model:
            requantize(model, Type[file.stem], file)
        folder = compiled_folder(str(file), "q4")
        print(row(file.stem, measure(folder, base), llama.measure(file, base_file)), flush=True)
        requantize(file, Type.F32, work / "own.gguf", embeddings=Type.F32)
        of_itself = llama.write_base(work / "own.gguf", work / "own.kld")
        own.append(row(file.stem, measure(folder, of_itself), llama.measure(file, work / "own.kld")))
    print("\nAgainst the same file in float32:\n")
    print("\n".join([HEADER, *own]))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2", help="a GGUF model, as `cupola serve` takes it")
    parser.add_argument("--llama", type=Path, required=True, help="the folder of llama-perplexity and its libraries")
    parser.add_argument("--types", nargs="*", default=["Q4_0", "Q8_0"], help="types to requantize the model to")
    parser.add_argument("--text", type=Path, nargs="*", default=TEXTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "text.txt").write_text("\n".join(path.read_text() for path in arguments.text))
        llama = Llama(arguments.llama, work / "text.txt")
        compare(open_checkpoint(arguments.model).path, [Type[name] for name in arguments.types], llama, work)


if __name__ == "__main__":
    main()
