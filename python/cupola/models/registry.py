"""The architectures that Cupola compiles."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cupola.errors import UnsupportedError
from cupola.manifest import Task
from cupola.models.bert import BERT, ROBERTA
from cupola.models.classifier import labels
from cupola.models.cohere import COHERE, COHERE2
from cupola.models.config import Config
from cupola.models.deepseek import DEEPSEEK2, DEEPSEEK3
from cupola.models.distilbert import DISTILBERT
from cupola.models.encoder_spec import EncoderSpec
from cupola.models.exaone import EXAONE4
from cupola.models.gemma import GEMMA, GEMMA2, GEMMA3, GEMMA3_TEXT
from cupola.models.glm import GLM, GLM4
from cupola.models.gpt2 import GPT2
from cupola.models.gpt_neox import GPT_NEOX
from cupola.models.gpt_oss import GPT_OSS
from cupola.models.granite import GRANITE, GRANITE_HYBRID
from cupola.models.granite_moe import GRANITE_MOE
from cupola.models.internlm import INTERNLM2, INTERNLM3
from cupola.models.llama import LLAMA
from cupola.models.mistral import MINISTRAL3, MISTRAL
from cupola.models.mixtral import MIXTRAL
from cupola.models.modernbert import MODERNBERT
from cupola.models.mpnet import MPNET
from cupola.models.nomic_bert import GTE, NOMIC_BERT
from cupola.models.olmo import OLMO2, OLMO3
from cupola.models.olmoe import OLMOE
from cupola.models.phi import PHI, PHI3
from cupola.models.qwen import QWEN2, QWEN3
from cupola.models.qwen_moe import QWEN2_MOE, QWEN3_MOE
from cupola.models.smollm3 import SMOLLM3
from cupola.models.spec import Architecture, DecoderSpec
from cupola.models.stablelm import STABLELM
from cupola.models.starcoder2 import STARCODER2

ARCHITECTURES: tuple[Architecture, ...] = (
    LLAMA,
    MISTRAL,
    MINISTRAL3,
    MIXTRAL,
    QWEN2,
    QWEN2_MOE,
    QWEN3,
    QWEN3_MOE,
    GEMMA,
    GEMMA2,
    GEMMA3,
    PHI,
    PHI3,
    SMOLLM3,
    OLMO2,
    OLMO3,
    OLMOE,
    GRANITE,
    GRANITE_HYBRID,
    GRANITE_MOE,
    STABLELM,
    EXAONE4,
    COHERE,
    COHERE2,
    GLM,
    GLM4,
    INTERNLM2,
    INTERNLM3,
    STARCODER2,
    GPT2,
    GPT_NEOX,
    GPT_OSS,
    DEEPSEEK2,
    DEEPSEEK3,
    BERT,
    ROBERTA,
    DISTILBERT,
    MPNET,
    MODERNBERT,
    NOMIC_BERT,
    GTE,
)


# Models that see, whose text part is served: what their `text_config` may leave out.
SEEING: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {"gemma3": GEMMA3_TEXT, "mistral3": MappingProxyType({"model_type": "mistral"})}
)


def find(model_type: str) -> Architecture:
    """The architecture of a checkpoint's `model_type`.

    Raises:
        UnsupportedError: there is none; the hint lists those that there are.
    """
    for architecture in ARCHITECTURES:
        if model_type in architecture.model_types:
            return architecture
    known = ", ".join(sorted(t for a in ARCHITECTURES for t in a.model_types))
    raise UnsupportedError(f"architecture `{model_type}` is not supported", hint=f"supported architectures: {known}")


def task(values: Mapping[str, object]) -> Task:
    """What a checkpoint is for. Raises as `read` does."""
    config = Config(values)
    kind = find(config.text("model_type")).task
    return "classify" if kind == "embed" and labels(config) else kind


def _text_part(values: Mapping[str, object]) -> Mapping[str, object]:
    """The configuration of the model that writes, where the checkpoint has one that sees too."""
    defaults, part = SEEING.get(str(values.get("model_type"))), values.get("text_config")
    return values if defaults is None or not isinstance(part, Mapping) else {**defaults, **part}


def read(values: Mapping[str, object], served: int = 0) -> tuple[Architecture, DecoderSpec | EncoderSpec]:
    """Architecture and sizes of a checkpoint from its configuration.

    Args:
        served: as in `Config`.

    Raises:
        UnsupportedError: unknown architecture, or sizes that no kernel can compute with.
        ModelError: a key is missing or of the wrong type.
    """
    config = Config(_text_part(values), served=served)
    architecture = find(config.text("model_type"))
    spec = architecture.read(config)
    spec.check()
    return architecture, spec
