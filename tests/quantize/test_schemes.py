"""Which format a parameter gets."""

from __future__ import annotations

import pytest

from cupola.quantize.formats import Format
from cupola.quantize.parameter import Role
from cupola.quantize.schemes import SCHEMES, choose_format
from cupola.weights.checkpoint import TensorInfo


def info(fmt: Format, *shape: int) -> TensorInfo:
    return TensorInfo("w", shape or (64, 64), fmt)


@pytest.mark.parametrize(
    ("scheme", "role", "expected"),
    [
        ("f32", Role.LINEAR, Format.F32),
        ("f32", Role.EMBEDDING, Format.F32),
        ("f16", Role.LINEAR, Format.F16),
        ("f16", Role.EMBEDDING, Format.F16),
        ("bf16", Role.LINEAR, Format.BF16),
        ("bf16", Role.EMBEDDING, Format.BF16),
        ("bf16", Role.VECTOR, Format.F32),
        ("q8", Role.LINEAR, Format.Q8),
        ("q8", Role.EMBEDDING, Format.Q8),
        ("q4", Role.LINEAR, Format.Q4),
        ("q4", Role.EMBEDDING, Format.Q8),
        ("q4", Role.VECTOR, Format.F32),
        ("q3", Role.LINEAR, Format.Q3),
        ("q3", Role.EMBEDDING, Format.Q4),
    ],
)
def test_floats_follow_the_scheme(scheme: str, role: Role, expected: Format) -> None:
    shape = (64,) if role is Role.VECTOR else (64, 64)
    assert choose_format(role, [info(Format.F32, *shape)], SCHEMES[scheme]) is expected


@pytest.mark.parametrize("scheme", ["q8", "q4", "q3", "f16", "bf16"])
@pytest.mark.parametrize("held", [Format.Q8, Format.Q4, Format.Q4S])
@pytest.mark.parametrize("role", [Role.LINEAR, Role.EMBEDDING])
def test_what_is_quantized_stays_as_it_is(scheme: str, held: Format, role: Role) -> None:
    assert choose_format(role, [info(held), info(held)], SCHEMES[scheme]) is held
    assert choose_format(role, [info(held)], SCHEMES["f32"]) is Format.F32


@pytest.mark.parametrize("four_bits", [Format.Q4, Format.Q4S])
@pytest.mark.parametrize("other", [Format.Q8, Format.F32])
def test_mixed_sources_become_q8(other: Format, four_bits: Format) -> None:
    assert choose_format(Role.LINEAR, [info(four_bits), info(other)], SCHEMES["q4"]) is Format.Q8


def test_a_minimum_is_implied_no_more_where_another_source_has_one() -> None:
    assert choose_format(Role.LINEAR, [info(Format.Q4S), info(Format.Q4)], SCHEMES["q8"]) is Format.Q4


def test_mixed_sources_stay_floats_under_a_scheme_of_floats() -> None:
    assert choose_format(Role.LINEAR, [info(Format.Q4), info(Format.Q8)], SCHEMES["bf16"]) is Format.BF16
    assert choose_format(Role.LINEAR, [info(Format.Q8), info(Format.F32)], SCHEMES["f16"]) is Format.F16


@pytest.mark.parametrize("scheme", ["f16", "bf16"])
def test_floats_need_no_groups(scheme: str) -> None:
    assert choose_format(Role.LINEAR, [info(Format.F32, 64, 48)], SCHEMES[scheme]) is Format(scheme)


@pytest.mark.parametrize("scheme", ["f32", "q8", "q4", "q3"])
def test_broken_groups_fall_back_to_f32(scheme: str) -> None:
    assert choose_format(Role.LINEAR, [info(Format.F32, 64, 48)], SCHEMES[scheme]) is Format.F32
