"""Which layers of a family have experts, and what is refused by name."""

from __future__ import annotations

import pytest

from cupola.errors import UnsupportedError
from cupola.models import registry
from cupola.models.spec import DecoderSpec
from family_models import FAMILIES, Config


def spec_of(name: str, **changes: object) -> DecoderSpec:
    spec = registry.read(FAMILIES[name] | changes)[1]
    assert isinstance(spec, DecoderSpec)
    return spec


def with_experts(spec: DecoderSpec) -> list[int]:
    return [layer for layer in range(spec.num_layers) if spec.experts_of(layer) is not None]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"decoder_sparse_step": 2}, [1, 3]),
        ({"mlp_only_layers": [0, 2]}, [1, 3]),
        ({"mlp_only_layers": [], "decoder_sparse_step": 4}, [3]),
    ],
)
def test_some_layers_of_qwen_are_dense(changes: Config, expected: list[int]) -> None:
    for name in ("qwen2-moe", "qwen3-moe"):
        assert with_experts(spec_of(name, num_hidden_layers=4, **changes)) == expected


def test_a_dense_model_has_none() -> None:
    assert with_experts(spec_of("qwen3")) == []


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt-oss", {"swiglu_limit": 10.0}, "swiglu_limit"),
        ("gpt-oss", {"swiglu_alpha": 1.0}, "swiglu_alpha"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv"),
        ("qwen2-moe", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen3-moe", {"num_experts_per_tok": 10}, "uses 10 experts of 9"),
        ("mixtral", {"intermediate_size": 40}, "multiple of 16"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(name: str, changes: Config, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        spec_of(name, **changes)
