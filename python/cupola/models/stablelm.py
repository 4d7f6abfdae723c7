"""StableLM 2 and 3B: layer norms, a quarter of each head rotates (Bellagente et al., 2024)."""

from __future__ import annotations

from dataclasses import replace

from cupola.errors import UnsupportedError
from cupola.models.config import Config
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec, Norm
from cupola.models.standard import alike, head_dim, standard


def read(config: Config) -> DecoderSpec:
    """The shape out of a StableLM config.json."""
    if config.flag("qk_layernorm", False):
        raise UnsupportedError("config.json: `qk_layernorm` is true; StableLM with norms of q and k is not supported")
    spec = standard(
        config,
        attentions=alike(config, Attention(rotary(config, head_dim(config), partial=0.25))),
        norm=Norm(config.number("layer_norm_eps", 1e-5), centered=True, bias=True),
        biases=Biases(qkv=config.flag("use_qkv_bias", False)),
    )
    parallel = config.flag("use_parallel_residual", False)
    return replace(spec, placement="parallel_shared" if parallel else "before")


STABLELM = Architecture(name="stablelm", model_types=("stablelm",), read=read, models="StableLM 2 and 3B")
