"""StableLM 2 and 3B: layer norms, a quarter of each head rotates (Bellagente et al., 2024)."""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec, Norm, QkNorm
from cupola.models.standard import alike, head_dim, standard

_NAMES = Names(q_norm="self_attn.q_layernorm", k_norm="self_attn.k_layernorm")


def read(config: Config) -> DecoderSpec:
    """The shape out of a StableLM config.json."""
    qk_norm: QkNorm = "heads" if config.flag("qk_layernorm", False) else "none"  # the 12B model
    spec = standard(
        config,
        attentions=alike(config, Attention(rotary(config, head_dim(config), partial=0.25), qk_norm=qk_norm)),
        names=_NAMES,
        norm=Norm(config.number("layer_norm_eps", 1e-5), centered=True, bias=True),
        biases=Biases(qkv=config.flag("use_qkv_bias", False)),
    )
    parallel = config.flag("use_parallel_residual", False)
    return replace(spec, placement="parallel_shared" if parallel else "before")


STABLELM = Architecture(name="stablelm", model_types=("stablelm",), read=read, models="StableLM 2 and 3B")
