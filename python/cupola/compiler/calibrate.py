"""Calibration: a text through the model in float32, to learn which errors matter, and what each format would cost.

Owns the order of these measurements; `probe` runs the model, `quantize` rounds and chooses.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tokenizers import Tokenizer

from cupola.compiler.calibration_text import text_of
from cupola.compiler.config import QuantizeConfig
from cupola.compiler.probe import Probe
from cupola.compiler.progress import OnProgress, Progress
from cupola.errors import UsageError
from cupola.manifest import Calibration
from cupola.models.spec import DecoderSpec
from cupola.quantize.budget import Option, choose
from cupola.quantize.divergence import Comparison
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.parameter import Parameter, Role
from cupola.quantize.rounding import dequantize, quantize
from cupola.quantize.schemes import SCHEMES, choose_format
from cupola.sizes import parse_size
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.convert import floats, packed_size

CONTEXT = 512  # tokens of a sequence
MOST_TOKENS = 16 * CONTEXT  # more of a text change the mean squares little
JUDGED = 128  # tokens by which formats are judged: one matrix at a time, so each costs a forward of as many
CANDIDATES = (Format.Q3, Format.Q4, Format.Q8, Format.F16)
_FLOOR = 0.02  # of the mean, added to every input's mean square: a short text leaves some inputs at rest


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What calibration says about a model.

    Args:
        parameters: in the formats that were chosen.
        importance: matrix -> float32 [inputs]; see `rounding.quantize`.
        record: what the manifest keeps of it.
    """

    parameters: dict[str, Parameter]
    importance: Mapping[str, np.ndarray]
    record: Calibration | None


def calibrate(
    checkpoint: Checkpoint,
    spec: DecoderSpec,
    parameters: dict[str, Parameter],
    config: QuantizeConfig,
    on_progress: OnProgress,
) -> Calibrated:
    """Measures the model on a text, if the configuration asks for it, and chooses formats, if it gives a budget.

    The weights are held in memory as float32 meanwhile.

    Raises:
        UsageError: the text cannot be read or is too short, or the budget is too small.
    """
    text = text_of(config)
    if text is None:
        return Calibrated(parameters, {}, None)
    name, content = text
    ids = _tokens(checkpoint, content)
    if len(ids) < JUDGED:
        raise UsageError(f"the calibration text {name} has {len(ids)} tokens, but {JUDGED} are needed")
    budget = _Budget.of(config, checkpoint, parameters) if config.budgeted else None
    probe = Probe(spec, checkpoint, parameters, CONTEXT, lambda at, of: on_progress(Progress("probe", at, of)))
    for at in range(0, len(ids), probe.context):
        on_progress(Progress("calibrate", at, len(ids)))
        for _ in probe.logits(ids[at : at + probe.context]):
            pass
    on_progress(Progress("calibrate", len(ids), len(ids)))
    importance = importance_of(probe.mean_squares())
    record = Calibration(text=name, text_sha256=hashlib.sha256(content.encode()).hexdigest(), tokens=len(ids))
    if budget is None:
        return Calibrated(parameters, importance, record)
    judge = _Judge(checkpoint, probe, importance, ids[: min(JUDGED, probe.context)])
    options: dict[str, list[Option]] = {}
    for done, choice in enumerate(budget.choices):
        on_progress(Progress("judge", done, len(budget.choices)))
        options[choice.parameter.name] = list(judge.options(choice))
    on_progress(Progress("judge", len(budget.choices), len(budget.choices)))
    chosen = choose(options, budget.size)
    found = {p.name: replace(p, format=chosen[p.name].format) if p.name in chosen else p for p in parameters.values()}
    expected = sum(option.loss for option in chosen.values())
    return Calibrated(found, importance, record.model_copy(update={"expected_kl": expected}))


def importance_of(mean_squares: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What errors cost by the inputs that were seen; nothing of matrices that no product was seen with."""
    return {name: values + _FLOOR * values.mean() for name, values in mean_squares.items() if values.any()}


@dataclass(frozen=True, slots=True)
class _Choice:
    """A matrix and the formats that it may have: as the checkpoint holds it, if that is quantized, and others.

    What is held is without loss, so that only smaller ones are of interest.
    """

    parameter: Parameter
    held: Format | None
    others: tuple[Format, ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint, parameter: Parameter) -> _Choice:
        infos = [checkpoint.tensors[source.name] for source in parameter.sources]
        if not any(info.format.integer for info in infos):
            return cls(parameter, None, CANDIDATES)
        held = choose_format(parameter.role, infos, SCHEMES["q8"])
        most = _size(parameter, held)
        return cls(parameter, held, tuple(fmt for fmt in CANDIDATES if _size(parameter, fmt) < most))

    @property
    def least(self) -> int:
        """Bytes of the smallest format."""
        held = () if self.held is None else (self.held,)
        return min(_size(self.parameter, fmt) for fmt in (*held, *self.others))


@dataclass(frozen=True, slots=True)
class _Budget:
    """Bytes for the matrices that have a choice."""

    size: int
    choices: tuple[_Choice, ...]

    @classmethod
    def of(cls, config: QuantizeConfig, checkpoint: Checkpoint, parameters: Mapping[str, Parameter]) -> _Budget:
        """What the configuration leaves to them. UsageError: not enough, or it is no size."""
        if config.target_size:
            size = parse_size(config.target_size, "--target-size")
        else:
            size = int(config.bits / 8 * sum(math.prod(parameter.shape) for parameter in parameters.values()))
        choices = []
        for parameter in parameters.values():
            if parameter.role in (Role.LINEAR, Role.EMBEDDING) and parameter.shape[1] % GROUP == 0:
                choices.append(_Choice.of(checkpoint, parameter))
            else:
                size -= packed_size(parameter)
        least = sum(choice.least for choice in choices)
        if size < least:
            raise UsageError(
                f"the budget leaves {max(size, 0):,} bytes to the matrices, which take {least:,} at least",
                hint="allow more with --bits or --target-size",
            )
        return cls(size, tuple(choices))


class _Judge:
    """What a matrix costs the predictions in each format."""

    def __init__(
        self, checkpoint: Checkpoint, probe: Probe, importance: Mapping[str, np.ndarray], ids: np.ndarray
    ) -> None:
        self._checkpoint, self._probe, self._importance, self._ids = checkpoint, probe, importance, ids
        self._reference = list(probe.logits(ids))

    def options(self, choice: _Choice) -> Iterator[Option]:
        """Losses are measured for the smallest format; those of others are in proportion to the weighted errors."""
        parameter = choice.parameter
        if choice.held is not None:
            yield Option(choice.held, _size(parameter, choice.held), 0.0)
        if not choice.others:
            return
        matrix = floats(self._checkpoint, parameter, 0, parameter.shape[0])
        importance = self._importance.get(parameter.name, np.ones(matrix.shape[1], np.float32))
        loss = first_error = 0.0
        for fmt in choice.others:
            stored = _stored(matrix, fmt, importance)
            difference = stored - matrix
            error = float(np.einsum("nk,nk,k->", difference, difference, importance))
            if fmt is choice.others[0]:
                loss, first_error = self._loss(parameter.name, stored), max(error, 1e-30)
            yield Option(fmt, _size(parameter, fmt), loss * error / first_error)

    def _loss(self, name: str, stored: np.ndarray) -> float:
        comparison = Comparison()
        with self._probe.replaced(name, stored):
            for reference, other in zip(self._reference, self._probe.logits(self._ids), strict=True):
                comparison.add(reference, other)
        return max(comparison.mean_kl, 0.0)


def _tokens(checkpoint: Checkpoint, text: str) -> np.ndarray:
    """At most `MOST_TOKENS` of the text."""
    with TemporaryDirectory() as folder:
        checkpoint.write_text_files(Path(folder))
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    return np.array(tokenizer.encode(text).ids[:MOST_TOKENS], np.int32)


def _size(parameter: Parameter, fmt: Format) -> int:
    return packed_size(replace(parameter, format=fmt))


def _stored(matrix: np.ndarray, fmt: Format, importance: np.ndarray) -> np.ndarray:
    """What is left of a matrix in a format."""
    if not fmt.grouped:
        return matrix.astype(np.float16).astype(np.float32)
    return dequantize(quantize(matrix, fmt, importance))
