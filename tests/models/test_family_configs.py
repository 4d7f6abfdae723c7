"""What families read out of a config.json, and what they refuse by name."""

from __future__ import annotations

from typing import cast

import pytest

from cupola.compiler.config import TargetConfig
from cupola.compiler.device import page_layout
from cupola.compiler.target import CpuTarget, GpuTarget, resolve
from cupola.errors import CupolaError
from cupola.models import registry
from cupola.models.parameters import declare
from cupola.models.spec import DecoderSpec
from family_models import FAMILIES


def spec_of(config: dict[str, object], served: int = 0) -> DecoderSpec:
    return cast(DecoderSpec, registry.read(config, served)[1])


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("deepseek2", {"norm_topk_prob": True}, "norm_topk_prob"),
        ("deepseek2", {"topk_method": "noaux_tc"}, "topk_method"),
        ("deepseek2", {"scoring_func": "sigmoid"}, "scoring_func"),
        ("deepseek2", {"attention_bias": True}, "attention_bias"),
        ("deepseek3", {"scoring_func": "softmax"}, "scoring_func"),
        ("deepseek3", {"moe_layer_freq": 2}, "moe_layer_freq"),
        ("deepseek3", {"kv_lora_rank": 40}, "kv_lora_rank"),
        ("deepseek3", {"topk_group": 5}, "groups"),
        ("granite4", {"layer_types": ["attention", "mamba"]}, "mamba"),
        ("granite4", {"layer_types": None}, "mamba"),
        ("granite4", {"num_local_experts": 4}, "num_local_experts"),
        ("granite4", {"position_embedding_type": "alibi"}, "alibi"),
        ("exaone4", {"sliding_window_pattern": "LGLG"}, "LGLG"),
        ("qwen3", {"hidden_act": "mish"}, "mish"),
        ("qwen3", {"rope_scaling": {"rope_type": "ntk", "factor": 2.0}}, "ntk"),
        ("deepseek3", {"rope_parameters": {"rope_type": "ntk", "factor": 2.0}}, "ntk"),
        ("ministral", {"layer_types": ["chunked_attention", "full_attention"]}, "chunked_attention"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(family: str, changes: dict[str, object], named: str) -> None:
    with pytest.raises(CupolaError, match=named):
        registry.read({**FAMILIES[family], **changes})


def test_pages_hold_the_latent_and_the_shared_key_alone() -> None:
    spec = spec_of(dict(FAMILIES["deepseek3"]))
    cpu = resolve(TargetConfig())
    assert isinstance(cpu, CpuTarget)
    assert page_layout(spec, 16, "float32", cpu).elements == 16 * (32 + 16)
    assert page_layout(spec, 16, "int16", cpu).elements == 16 * (32 + 16) + 2 * 2 * 16  # and two scales a token
    gpu = GpuTarget("cuda", "sm_90", 256, 48 << 10, 32, "float16", cpu)
    assert page_layout(spec, 16, "float16", gpu).elements == 16 * (32 + 16)


def test_first_layers_are_dense_and_further_ones_stay_in_the_checkpoint() -> None:
    spec = spec_of(dict(FAMILIES["deepseek3"]))
    assert [spec.experts_of(i) is None for i in range(2)] == [True, False]
    names = {source.name for parameter in declare(spec, ()) for source in parameter.sources}
    assert not any(name.startswith("model.layers.2.") for name in names)


def test_the_context_that_is_served_chooses_longrope_s_factors() -> None:
    config = dict(FAMILIES["phi3-longrope"])
    scaling = cast(dict[str, list[float]], config["rope_parameters"])
    plain = spec_of({**config, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})
    for served, name in ((0, "long_factor"), (32, "long_factor"), (17, "long_factor"), (16, "short_factor")):
        rotary, unscaled = spec_of(config, served).layers[0].rotary, plain.layers[0].rotary
        assert rotary is not None
        assert unscaled is not None
        expected = [f / by for f, by in zip(unscaled.frequencies, scaling[name], strict=True)]
        assert rotary.frequencies == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("wrapper", [("gemma3", "gemma3"), ("mistral3", "ministral3"), ("mistral3", "mistral")])
def test_of_a_model_that_sees_the_text_part_is_read(wrapper: tuple[str, str]) -> None:
    seeing, family = wrapper
    text = dict(FAMILIES[family])
    spec = spec_of({"model_type": seeing, "text_config": text, "vision_config": {}})
    assert spec == spec_of(text)
    plain = {source.name for parameter in declare(spec, ()) for source in parameter.sources}
    spellings = (
        {f"language_model.{name}" for name in plain},
        {name.replace("model.", "model.language_model.", 1) for name in plain},
        {name.removeprefix("model.") for name in plain},
    )
    for held in spellings:
        assert {source.name for parameter in declare(spec, held) for source in parameter.sources} == held


def test_a_ministral_3_ends_where_its_queries_would_grow() -> None:
    config = dict(FAMILIES["ministral3"])
    assert spec_of(config).max_context == 64
    scaling = cast(dict[str, object], config["rope_parameters"])
    without = {key: value for key, value in scaling.items() if key != "llama_4_scaling_beta"}
    assert spec_of({**config, "rope_parameters": without}).max_context == 256
