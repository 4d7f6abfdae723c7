"""What `cupola show` knows of a model: its sizes, and the memory that it takes.

A compiled folder tells by its manifest, without TVM. Of a checkpoint it is what the compiler would write.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cupola.evaluation import Evaluation, read_evaluation
from cupola.manifest import Calibration, KvCache, Manifest, Shape, Task, Weight
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import OUT_BLOCK
from cupola.quantize.wide import OUTPUTS
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.holdings import Holding, holdings


@dataclass(frozen=True, slots=True)
class Outline:
    """A model in numbers.

    Args:
        scheme: how its weights are, or would be, stored.
        parameters: numbers that were learned.
        formats: bytes of weights in each format.
        working_bytes: of one step at the compiled limits; None: known once it is compiled.
        holdings: of a checkpoint, what becomes of its weights.
        calibration, evaluation: of a compiled folder, where somebody asked for them.
    """

    name: str
    path: Path
    state: Literal["checkpoint", "compiled"]
    architecture: str
    task: Task
    scheme: str
    parameters: int
    formats: Mapping[str, int]
    shape: Shape
    kv_cache: KvCache
    working_bytes: int | None = None
    holdings: tuple[Holding, ...] = ()
    calibration: Calibration | None = None
    evaluation: Evaluation | None = None

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(self.formats.values())

    @property
    def bits_per_weight(self) -> float:
        """Scales and padding count."""
        return 8 * self.weight_bytes / self.parameters

    def kv_bytes(self, context: int) -> int:
        """Bytes of keys and values of one sequence of `context` tokens: whole pages in every layer; in those that see
        only a window, as many as it has."""
        pages = math.ceil(context / self.kv_cache.page_size)
        return self.kv_cache.bytes_of(self.shape.num_layers, pages, self.kv_cache.window_pages(context))

    def memory(self, context: int) -> int:
        """Bytes of weights, of keys and values, and of one step."""
        return self.weight_bytes + self.kv_bytes(context) + (self.working_bytes or 0)

    def longest_context(self, available: int) -> int:
        """The most tokens of one sequence for which so many bytes suffice; 0: not even the weights fit."""
        size, rest = self.kv_cache.page_size, available - self.memory(0)
        most = -(-self.shape.max_context // size)
        pages = bisect.bisect_right(range(most + 1), rest, key=lambda count: self.kv_bytes(count * size)) - 1
        return min(max(0, pages) * size, self.shape.max_context)


def of_folder(folder: Path, manifest: Manifest) -> Outline:
    """The outline of a compiled folder."""
    formats: Counter[str] = Counter()
    for weight in manifest.weights:
        formats[weight.format] += weight.bytes
    return Outline(
        name=manifest.name,
        path=folder,
        state="compiled",
        architecture=manifest.architecture,
        task=manifest.task,
        scheme=manifest.scheme,
        parameters=sum(_elements(weight, manifest.shape) for weight in manifest.weights),
        formats=formats,
        shape=manifest.shape,
        kv_cache=manifest.kv_cache,
        working_bytes=sum(manifest.library.memory.values()),
        calibration=manifest.calibration,
        evaluation=read_evaluation(folder),
    )


def of_checkpoint(checkpoint: Checkpoint, quant: str | None) -> Outline:
    """The outline of a checkpoint as `cupola compile --quant QUANT` would store it.

    Raises:
        ModelError: it is incomplete, or of an architecture that is not supported.
        UsageError: there is no such scheme.
    """
    from cupola.compiler import config as configuration
    from cupola.compiler.compile import chosen_parameters
    from cupola.compiler.plan import plan_decoder, plan_encoder
    from cupola.compiler.target import resolve
    from cupola.models import registry
    from cupola.models.encoder_spec import EncoderSpec
    from cupola.resources import resource_folder
    from cupola.weights.convert import VECTOR, packed_size
    from cupola.weights.sentence_transformers import settings_of

    architecture, spec = registry.read(checkpoint.config)
    loaded = configuration.load(resource_folder("compile_configs") / "cpu.toml")
    config = loaded.with_quant(quant).resolved(architecture.task)
    parameters = chosen_parameters(spec, checkpoint, config.model.quant)
    target = resolve(config.target)
    if isinstance(spec, EncoderSpec):
        plan = plan_encoder(spec, parameters, settings_of(checkpoint), config, target)
    else:
        plan = plan_decoder(spec, parameters, config, target)
    formats: Counter[str] = Counter()
    for parameter in parameters.values():
        vector = len(parameter.shape) == 1
        formats[VECTOR if vector else parameter.format.value] += packed_size(parameter)
    return Outline(
        name=checkpoint.name,
        path=checkpoint.path,
        state="checkpoint",
        architecture=architecture.name,
        task=registry.task(checkpoint.config),
        scheme=config.model.quant,
        parameters=sum(math.prod(parameter.shape) for parameter in parameters.values()),
        formats=formats,
        shape=plan.shape,
        kv_cache=plan.kv_cache,
        holdings=holdings(checkpoint, parameters.values()),
    )


def _elements(weight: Weight, shape: Shape) -> int:
    """How many numbers a packed weight holds, without the rows that fill its last block."""
    if len(weight.shape) < 3:
        return math.prod(weight.shape)
    blocks, depth, _ = weight.shape
    fmt = Format(weight.format)
    if fmt is Format.Q16:
        rows, inputs = blocks * OUTPUTS, 2 * (depth - 1)
    else:
        rows, inputs = blocks * OUT_BLOCK, depth * GROUP if fmt.grouped else depth
    # Of a decoder's matrices only these have a number of rows that need not be a multiple of a block.
    return inputs * (shape.vocab_size if weight.name in ("embedding.weight", "head.weight") else rows)
