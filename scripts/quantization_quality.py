"""What Cupola loses on each type of a GGUF file: its mean KL divergence from the same file computed in float32.

The weights of the two are the same numbers, so all of it comes from Cupola's own layouts, its 8-bit activations and its
float16 pages; what the type itself has lost is no part of it. The files are made from the default model. Types beyond
the simple ones need ggml's own quantizers, out of any build of llama.cpp.

    PYTHONPATH=tests python scripts/quantization_quality.py --ggml .../libggml-base.so
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer

from cupola.weights.source import open_checkpoint
from numerics.divergence import Divergence, divergence
from numerics.requantize import GGML_TYPES, SIMPLE_TYPES, Ggml, Type, requantize, write_layout_pair
from numerics.sequence import Sequences

TEXT = Path(__file__).resolve().parents[1] / "tests" / "goldens" / "kl_text.txt"


def compiled(model: Path, quant: str, folder: Path) -> Path:
    """Compiles a GGUF file into `folder`."""
    command = [sys.executable, "-m", "cupola", "compile", str(model), "-o", str(folder), "--quant", quant]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


def measure(model: Path, work: Path, tokens: int) -> Divergence:
    """The file as Cupola runs it against its float32 values."""
    return compare(compiled(model, "f32", work / "f32"), compiled(model, "q4", work / "ours"), tokens)


def measure_layout(model: Path, kind: Type, ggml: Ggml, work: Path, tokens: int) -> Divergence:
    """The numbers that Cupola stores for a type against the type's own, both in float32."""
    write_layout_pair(model, kind, work / "exact.gguf", work / "stored.gguf", ggml)
    exact, stored = (compiled(work / f"{name}.gguf", "f32", work / name) for name in ("exact", "stored"))
    return compare(exact, stored, tokens)


def compare(exact: Path, ours: Path, tokens: int) -> Divergence:
    """KL(exact, ours) over the beginning of the text."""
    tokenizer = Tokenizer.from_file(str(ours / "tokenizer.json"))
    ids = tokenizer.encode(TEXT.read_text(), add_special_tokens=False).ids[:tokens]
    return divergence(Sequences(exact, max_tokens=tokens), Sequences(ours, max_tokens=tokens), ids)


def main() -> None:
    """Prints one row of a Markdown table for each type."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2", help="a GGUF model, as `cupola serve` takes it")
    parser.add_argument("--ggml", type=Path, help="libggml-base.so, for the types that the gguf library cannot write")
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--types", nargs="*", help="such as Q4_K; default: all that can be written")
    parser.add_argument("--layouts", action="store_true", help="weights alone: all in float32; needs --ggml")
    arguments = parser.parse_args()
    if arguments.layouts and not arguments.ggml:
        parser.error("--layouts needs --ggml")
    source = open_checkpoint(arguments.model).path
    ggml = None if arguments.ggml is None else Ggml(arguments.ggml)
    print("| type | share of the layers | mean KL (nats) | 99th percentile | same best token |")
    print("|---|---|---|---|---|", flush=True)
    names = arguments.types or [kind.name for kind in SIMPLE_TYPES + (GGML_TYPES if ggml else ())]
    for kind in (Type[name] for name in names):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            if arguments.layouts:
                share, found = 1.0, measure_layout(source, kind, ggml, work, arguments.tokens)
            else:
                share = requantize(source, kind, work / "model.gguf", ggml)
                found = measure(work / "model.gguf", work, arguments.tokens)
        best = f"{found.same_best_token:.1%}"
        print(f"| {kind.name} | {share:.0%} | {found.mean_kl:.5f} | {found.p99_kl:.4f} | {best} |", flush=True)


if __name__ == "__main__":
    main()
