"""gpt-oss: sinks in every head, every second layer slides, experts with biases and a clamped SwiGLU (OpenAI, 2025)."""

from __future__ import annotations

from dataclasses import replace

from cupola.errors import UnsupportedError
from cupola.kernels.routing import Routing
from cupola.kernels.swiglu import SWIGLU_ALPHA, SWIGLU_LIMIT
from cupola.models.config import Config
from cupola.models.experts import ExpertNames, Experts
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import head_dim, layer_kinds, layers, rms_norm, standard

NAMES = (ExpertNames(router="mlp.router", interleaved=True, transposed=True), ExpertNames())


def read(config: Config) -> DecoderSpec:
    """The shape out of a gpt-oss config.json."""
    for key, known in {"swiglu_alpha": SWIGLU_ALPHA, "swiglu_limit": SWIGLU_LIMIT}.items():
        if config.number(key, known) != known:
            raise UnsupportedError(
                f"config.json: `{key}` is {config.number(key)}; Cupola's kernels compute with {known}"
            )
    dim = head_dim(config, 64)
    full = Attention(rotary(config, dim, theta=150000.0), sinks=True)
    sliding = replace(full, window=config.integer("sliding_window", 128))
    bias = config.flag("attention_bias", True)
    spec = standard(
        config,
        attentions=layers(layer_kinds(config, lambda i: i % 2 == 0), full, sliding),
        norm=rms_norm(config, eps=1e-5),
        dim=dim,
        biases=Biases(qkv=bias, output=bias),
        activation="swiglu_clamped",
    )
    routing = Routing(config.integer("num_local_experts"), config.integer("num_experts_per_tok", 4))
    experts = Experts(config.integer("intermediate_size"), routing, router_bias=True, biases=True, names=NAMES)
    return replace(spec, experts=(experts,) * spec.num_layers)


GPT_OSS = Architecture(name="gpt_oss", model_types=("gpt_oss",), read=read, models="gpt-oss 20B and 120B")
