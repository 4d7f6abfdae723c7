"""What a model for one task or the other asks of the compiler, and what the manifest says about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cupola.compiler import device, encoder_library, library
from cupola.compiler.config import CompileConfig, LimitsConfig
from cupola.compiler.target import CpuTarget, Target
from cupola.errors import UsageError
from cupola.manifest import Classifier, Embedding, KvCache, Shape
from cupola.models.encoder import Pooling
from cupola.models.encoder_spec import EncoderSpec
from cupola.models.spec import DecoderSpec
from cupola.quantize.layouts import OUT_BLOCK
from cupola.quantize.parameter import Parameter
from cupola.weights.sentence_transformers import SentenceSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """How the library is built, and the parts of the manifest that depend on the task."""

    build: Callable[[Path], library.Library]
    shape: Shape
    kv_cache: KvCache
    limits: LimitsConfig
    embedding: Embedding | None = None
    classifier: Classifier | None = None


def plan_decoder(spec: DecoderSpec, parameters: Mapping[str, Parameter], config: CompileConfig, target: Target) -> Plan:
    """A model that generates. UsageError: a context that it was not trained for."""
    dtype = device.page_dtype(config, target)
    elements = device.page_layout(spec, config.kv_cache.page_size, dtype, target).elements
    max_context = _max_context(config, spec.max_context)
    kv_cache = KvCache(
        page_size=config.kv_cache.page_size,
        dtype=dtype,
        page_elements=elements,
        window=spec.window,
        window_layers=tuple(i for i, layer in enumerate(spec.layers) if layer.window),
    )
    shape = Shape(
        vocab_size=spec.vocab_size,
        logit_stride=-(-spec.vocab_size // OUT_BLOCK) * OUT_BLOCK,
        hidden_size=spec.hidden_size,
        num_layers=spec.num_layers,
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        max_context=max_context,
    )

    def build(path: Path) -> library.Library:
        return library.build(spec, parameters, kv_cache, config.limits, target, path)

    return Plan(build, shape, kv_cache, config.limits)


def plan_encoder(
    spec: EncoderSpec,
    parameters: Mapping[str, Parameter],
    settings: SentenceSettings,
    config: CompileConfig,
    target: Target,
) -> Plan:
    """A model for embeddings, or a classifier; a step has room for one text at least. Raises as `plan_decoder`."""
    usual = min(settings.max_tokens or spec.max_context, spec.max_context)
    max_context = _max_context(config, spec.max_context) if config.model.max_context else usual
    limits = config.limits.model_copy(update={"max_step_tokens": max(config.limits.max_step_tokens, max_context)})
    dtype = device.page_dtype(config, target)
    if isinstance(target, CpuTarget) and dtype != "float32":
        dtype = "int16"
    pooling = Pooling(settings.pooling, settings.normalized)
    sizes = encoder_library.EncoderSizes(max_context, pooling, dtype, limits)
    shape = Shape(
        vocab_size=spec.vocab_size,
        logit_stride=0,
        hidden_size=spec.hidden_size,
        num_layers=spec.num_layers,
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_heads,
        head_dim=spec.head_dim,
        max_context=max_context,
    )

    def build(path: Path) -> library.Library:
        return encoder_library.build(spec, parameters, sizes, target, path)

    kv_cache = KvCache(page_size=config.kv_cache.page_size, dtype=dtype, page_elements=0)
    if spec.head is not None:
        head = Classifier(labels=spec.head.labels, scores=spec.head.scores, pair_types=spec.type_vocab_size > 1)
        return Plan(build, shape, kv_cache, limits, classifier=head)
    embedding = Embedding(
        dimensions=spec.hidden_size,
        pooling=settings.pooling,
        normalized=settings.normalized,
        matryoshka=settings.matryoshka,
    )
    return Plan(build, shape, kv_cache, limits, embedding)


def _max_context(config: CompileConfig, trained: int) -> int:
    if config.model.max_context > trained:
        raise UsageError(
            f"model.max_context is {config.model.max_context}, but the model was trained for {trained} tokens",
            hint=f"ask for at most {trained}",
        )
    return config.model.max_context or trained
