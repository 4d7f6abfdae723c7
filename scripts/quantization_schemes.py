"""What each scheme of Cupola's own loses: models of floats, in few bits, against themselves in float32.

Weights alone are rounded, and all else is computed in float32; 8-bit activations add 0.003 nats (docs/quantization.md).
The models are those that there are, GGUF files, dequantized, with their channels in another order so that no group is
one of the file's (scripts/permuted_model.py).

    python scripts/quantization_schemes.py smollm2 gemma3
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from cupola.compiler.calibrate import CONTEXT, Calibrated, calibrate
from cupola.compiler.compile import chosen_parameters
from cupola.compiler.config import CompileConfig
from cupola.compiler.probe import Probe
from cupola.models import registry
from cupola.models.spec import DecoderSpec
from cupola.quantize.divergence import Comparison
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.parameter import Parameter, Role
from cupola.quantize.rounding import dequantize, quantize
from cupola.resources import resource_folder
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.convert import floats, packed_size
from cupola.weights.source import open_checkpoint
from permuted_model import write_permuted

Rows = Iterator[tuple[str, Calibrated, bool]]  # what it is called, formats and importance, whether to round plainly


def nearest(matrix: np.ndarray, levels: int) -> np.ndarray:
    """Plain rounding to equal steps between the extremes of a group."""
    groups = matrix.reshape(-1, GROUP)
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    low, step = low.astype(np.float16).astype(np.float32), ((high - low) / levels).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint((groups - low) / np.where(step == 0, 1, step)), 0, levels)
    return (codes * step + low).reshape(matrix.shape)


def stored(checkpoint: Checkpoint, parameter: Parameter, importance: np.ndarray | None, plain: bool) -> np.ndarray:
    """What a format leaves of a matrix."""
    matrix = floats(checkpoint, parameter, 0, parameter.shape[0])
    if plain and parameter.format in (Format.Q4, Format.Q3):
        return nearest(matrix, 15 if parameter.format is Format.Q4 else 7)
    if not parameter.format.grouped:
        return matrix.astype(np.float16).astype(np.float32)
    return dequantize(quantize(matrix, parameter.format, importance))


def schemes(checkpoint: Checkpoint, spec: DecoderSpec, bits: list[float]) -> Rows:
    """All rows of the table."""
    calibrated = CompileConfig().with_quantize(calibrate="auto").quantize
    importance = calibrate(checkpoint, spec, chosen_parameters(spec, checkpoint, "q4"), calibrated, lambda _: None)
    for quant in ("q8", "q4", "q3"):
        chosen = Calibrated(chosen_parameters(spec, checkpoint, quant), {}, None)
        if quant != "q8":
            yield f"`{quant}`, rounded to the nearest", chosen, True
        yield f"`{quant}`", chosen, False
        if quant != "q8":
            yield f"`{quant} --calibrate auto`", replace(chosen, importance=importance.importance), False
    for count in bits:
        config = CompileConfig().with_quantize(bits=count).quantize
        chosen = chosen_parameters(spec, checkpoint, "q4")
        yield f"`--bits {count:g}`", calibrate(checkpoint, spec, chosen, config, lambda _: None), False


def measure(name: str, tokens: int, bits: list[float]) -> None:
    """Prints a row for each scheme."""
    with tempfile.TemporaryDirectory() as folder:
        write_permuted(open_checkpoint(name), Path(folder) / "model")
        checkpoint = open_checkpoint(str(Path(folder) / "model"))
        _, spec = registry.read(checkpoint.config)
        assert isinstance(spec, DecoderSpec)
        tokenizer = Tokenizer.from_file(str(Path(folder) / "model" / "tokenizer.json"))
        text = (resource_folder("texts") / "evaluation.txt").read_text()
        ids = np.array(tokenizer.encode(text).ids[:tokens], np.int32)
        exact = chosen_parameters(spec, checkpoint, "f32")
        probe = Probe(spec, checkpoint, exact, CONTEXT, lambda _, __: None)
        reference = [np.concatenate(list(probe.logits(ids[at : at + CONTEXT]))) for at in range(0, len(ids), CONTEXT)]
        for label, chosen, plain in schemes(checkpoint, spec, bits):
            comparison = Comparison()
            with ExitStack() as stack:
                for parameter in chosen.parameters.values():
                    if parameter.role in (Role.LINEAR, Role.EMBEDDING) and parameter.format is not Format.F32:
                        weights = stored(checkpoint, parameter, chosen.importance.get(parameter.name), plain)
                        stack.enter_context(probe.replaced(parameter.name, weights))
                for at, expected in zip(range(0, len(ids), CONTEXT), reference, strict=True):
                    part = ids[at : at + CONTEXT]
                    comparison.add(expected, np.concatenate(list(probe.logits(part))), part[1:])
            size = sum(packed_size(parameter) for parameter in chosen.parameters.values())
            per_weight = 8 * size / sum(np.prod(parameter.shape) for parameter in chosen.parameters.values())
            before, after = comparison.perplexities
            print(
                f"| {name} | {label} | {size / 1e6:.0f} MB | {per_weight:.2f} | {comparison.mean_kl:.4f} "
                f"| {comparison.p99_kl:.3f} | {comparison.same_best_token:.1%} | {after:.2f} ({before:.2f}) |",
                flush=True,
            )


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["smollm2", "gemma3"])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--bits", type=float, nargs="*", default=[4.25, 5.0])
    arguments = parser.parse_args()
    print("| model | scheme | weights | bits | mean KL (nats) | 99th percentile | same best token | perplexity (f32) |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for model in arguments.models:
        measure(model, arguments.tokens, arguments.bits)


if __name__ == "__main__":
    main()
