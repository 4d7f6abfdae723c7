"""Every instruction set gives the same bits: a library may be compiled anew for a better processor."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.kernels.cpu.isa import PLAIN
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.quantize.formats import Format
from kernels.kernel_cases import linear_case
from kernels.kernel_driver import TARGETS, build

SPECS = (
    LinearSpec(Format.Q4, inputs=32 * 17, outputs=41),
    LinearSpec(Format.Q8, inputs=32 * 17, outputs=41),
    LinearSpec(Format.Q4, inputs=64, outputs=64, gated=True),
    LinearSpec(Format.Q8, inputs=64, outputs=32, residual=True),
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.outputs}x{spec.inputs}")
def test_same_bits(spec: LinearSpec) -> None:
    results: dict[str, list[np.ndarray]] = {}
    for isa, target in TARGETS.items():
        case = linear_case(spec, isa)
        product = build(case.function, target)
        for call in case.calls:
            product(*call)
        results[isa.name] = [call[-1] for call in case.calls]
        assert all(y.any() for y in results[isa.name])
    for name, ys in results.items():
        for y, plain in zip(ys, results[PLAIN.name], strict=True):
            assert np.array_equal(y, plain), f"{name} differs from {PLAIN.name} with {len(y)} rows"
