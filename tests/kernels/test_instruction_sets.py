"""Every instruction set gives the same bits: a library may be compiled anew for a better processor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cupola.kernels.cpu.isa import PLAIN, Isa
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.quantize.formats import Format
from kernels.kernel_cases import Case, attention_cases, linear_case
from kernels.kernel_driver import TARGETS, build

SPECS = (
    LinearSpec(Format.Q4, inputs=32 * 17, outputs=41),
    LinearSpec(Format.Q8, inputs=32 * 17, outputs=41),
    LinearSpec(Format.Q4, inputs=64, outputs=64, gated=True),
    LinearSpec(Format.Q8, inputs=64, outputs=32, residual=True),
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.outputs}x{spec.inputs}")
def test_products_have_the_same_bits(spec: LinearSpec) -> None:
    check_bits(lambda isa: linear_case(spec, isa), output=-1)


@pytest.mark.parametrize("name", ["attention int16 9-3-64", "attention int8 4-4-32"])
def test_attention_has_the_same_bits(name: str) -> None:
    check_bits(lambda isa: next(case for case in attention_cases(isa) if case.name == name), output=-3)


def check_bits(case_of: Callable[[Isa], Case], output: int) -> None:
    """All calls of a case with every instruction set."""
    results: dict[str, list[np.ndarray]] = {}
    for isa, target in TARGETS.items():
        case = case_of(isa)
        kernel = build(case.function, target)
        for call in case.calls:
            kernel(*call)
        results[isa.name] = [call[output] for call in case.calls]
        assert all(y.any() for y in results[isa.name])
    for name, ys in results.items():
        for y, plain in zip(ys, results[PLAIN.name], strict=True):
            assert np.array_equal(y, plain), f"{name} differs from {PLAIN.name} with {len(y)} rows"
