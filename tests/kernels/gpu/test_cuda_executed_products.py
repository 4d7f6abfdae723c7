"""Products as CUDA's devices choose them by the number of rows, executed by the interpreter of PTX, against NumPy."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from cuda_executed import ARCHITECTURES, LARGE, NEEDS_NVCC, Executed, floats, gpu, stored
from gpu_cases import packed

from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.experts import Experts, linear_experts
from cupola.kernels.gpu.latent import ByHead, linear_by_head
from cupola.kernels.gpu.linear import Linear, linear
from cupola.kernels.gpu.pages import GpuPages, MatrixPages, pages_for_units
from cupola.kernels.gpu.position import Append
from cupola.kernels.gpu.project import Projection, project_append
from cupola.kernels.gpu.trait import STORED
from cupola.kernels.gpu.weights import Packed
from cupola.kernels.heads import HeadShape
from cupola.quantize.formats import Format

pytestmark = NEEDS_NVCC
TYPES = ("float32", "float16", "bfloat16")
# Of a unit in the last place at 1, rounding of a result and of weights; sums are float32.
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
SOME = [(Format.Q4, "float16", "sm_90"), (Format.Q8, "bfloat16", "sm_80"), (Format.F16, "float16", "sm_80")]
ALL = [
    pytest.param(fmt, dtype, ARCHITECTURES[(i + j) % 2], marks=LARGE)
    for i, fmt in enumerate(Format)
    for j, dtype in enumerate(TYPES)
    if (fmt, dtype, ARCHITECTURES[(i + j) % 2]) not in SOME
]
# One row, some, eight and nine; tiles that are not full; several tiles of the largest.
ROWS = (1, 3, 8, 9, 33, 300)


def close(found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    """To some units in the last place, of the largest of the result: weights are rounded to the type of the unit."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=TOLERANCE[dtype])


def check_product(spec: Linear, kernel: Executed, n: int, words: np.ndarray, matrix: np.ndarray) -> None:
    """Calls a product of n rows, and compares."""
    dtype = spec.gpu.dtype
    rng, ending = np.random.default_rng(n), spec.ending
    x = stored(rng.standard_normal((n, spec.matrix.inputs)), dtype)
    residual, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, ending.width), ending.outputs))
    y = stored(np.full((n, ending.width), np.nan), dtype)
    parts = [np.full(spec.partial_sums, np.nan, np.float32)] if spec.partial_sums else []
    given = [*([bias] if ending.bias else []), *([residual] if ending.residual else [])]
    kernel(x, words, *given, y, *parts)
    sums = floats(x, dtype) @ matrix.T.astype(np.float64) + (bias if ending.bias else 0)
    if ending.gated:
        gate, up = np.split(sums, 2, axis=1)
        sums = gate / (1 + np.exp(-gate)) * up
    expected = sums + (residual[:, : sums.shape[1]] if ending.residual else 0)
    close(floats(y, dtype)[:, : sums.shape[1]], expected, dtype)


@pytest.mark.parametrize(("fmt", "dtype", "arch"), [*SOME, *ALL])
def test_products_of_one_row_to_many(fmt: Format, dtype: str, arch: str) -> None:
    """With rows, outputs and inputs that fill no tile, a bias, and what is added."""
    outputs, inputs = 200, 288
    ending = Ending(outputs, 208, bias=True, residual="float32")
    spec = Linear(Packed(fmt, outputs, inputs, half=True), ending, STORED[dtype], STORED[dtype], gpu(dtype))
    kernel, (words, matrix) = Executed(linear(spec), arch), packed(fmt, outputs, inputs)
    for n in ROWS:
        check_product(spec, kernel, n, words, matrix)


@pytest.mark.parametrize("arch", ["sm_90", pytest.param("sm_80", marks=LARGE)])
@pytest.mark.parametrize("fmt", [Format.Q4, *(pytest.param(f, marks=LARGE) for f in (Format.F16, Format.Q3))])
def test_products_whose_inputs_are_shared_out(fmt: Format, arch: str) -> None:
    """Between blocks, whose sums another grid adds up."""
    outputs, inputs = 96, 2048
    matrix = Packed(fmt, outputs, inputs, half=True)
    spec = Linear(matrix, Ending(outputs, outputs), "float16", "float16", gpu("float16"))
    assert spec.partial_sums
    kernel, (words, numbers) = Executed(linear(spec), arch), packed(fmt, outputs, inputs)
    for n in (9, 40, 129):
        check_product(spec, kernel, n, words, numbers)


def less_patient(text: str) -> str:
    """Of copies under way, one group more is left to come."""
    return re.sub(r"cp\.async\.wait_group +(\d+);", lambda match: f"cp.async.wait_group {int(match[1]) + 1};", text)


def one_barrier_less(text: str) -> str:
    """In every tile's loop over the inputs, warps do not wait for each other."""
    return re.sub(r"(cp\.async\.wait_group +\d+;\s+(//[^\n]*\s+)*)bar\.sync\s+0;", r"\1", text)


@pytest.mark.parametrize(
    ("fault", "found"),
    [(less_patient, "Not equal to tolerance|race in shared memory"), (one_barrier_less, "race in shared memory")],
)
def test_planted_faults_are_found(fault: Callable[[str], str], found: str) -> None:
    """In a pipeline of copies, where a device would forgive them most of the time."""
    outputs, inputs = 200, 288
    ending = Ending(outputs, 208, bias=True, residual="float32")
    spec = Linear(Packed(Format.Q4, outputs, inputs, half=True), ending, "float16", "float16", gpu("float16"))
    kernel, (words, matrix) = Executed(linear(spec), "sm_90", change=fault), packed(Format.Q4, outputs, inputs)
    with pytest.raises((AssertionError, RuntimeError), match=found):
        check_product(spec, kernel, 33, words, matrix)


@pytest.mark.parametrize("arch", [pytest.param("sm_90", marks=LARGE), pytest.param("sm_80", marks=LARGE)])
@pytest.mark.parametrize(("fmt", "dtype"), [(Format.Q4, "float16"), (Format.Q8, "bfloat16"), (Format.F16, "float16")])
def test_gated_products(fmt: Format, dtype: str, arch: str) -> None:
    matrix = Packed(fmt, 2 * 144, 320, half=True)
    spec = Linear(matrix, Ending(2 * 144, 144, gated=True), STORED[dtype], STORED[dtype], gpu(dtype))
    kernel, (words, numbers) = Executed(linear(spec), arch), packed(fmt, 2 * 144, 320)
    for n in ROWS:
        check_product(spec, kernel, n, words, numbers)


@pytest.mark.parametrize(("dtype", "arch"), [("float16", "sm_90"), pytest.param("bfloat16", "sm_80", marks=LARGE)])
def test_projections_rotate_and_append(dtype: str, arch: str) -> None:
    """A few rows in one kernel, many in two; slots lie in the middle of pages."""
    heads, inputs, size, kept = HeadShape(4, 2, 64), 256, 8, STORED[dtype]
    pages = pages_for_units(GpuPages(heads, size, kept))
    assert isinstance(pages, MatrixPages)
    outputs = 8 * 64
    ending = Ending(outputs, outputs, bias=True)
    product = Linear(Packed(Format.Q4, outputs, inputs, half=True), ending, kept, kept, gpu(dtype))
    spec = Projection(product, Append(pages, outputs, 64, 0.5, kept))
    kernel, (words, matrix) = Executed(project_append(spec), arch), packed(Format.Q4, outputs, inputs)
    for n in (1, 5, 20):
        rng = np.random.default_rng(n)
        x, bias = stored(rng.standard_normal((n, inputs)), dtype), rng.standard_normal(outputs).astype(np.float32)
        table = rng.uniform(-1, 1, (n, 2, 32)).astype(np.float32)
        slots = (rng.permutation(4 * size)[:n] + 3).astype(np.int32)
        memory, q = (stored(np.full(shape, np.nan), dtype) for shape in ((5, pages.elements), (n, 4 * 64)))
        own = [stored(np.full((n, outputs), np.nan), dtype)]
        own += [np.full(product.partial_sums, np.nan, np.float32)] if product.partial_sums else []
        kernel(x, words, bias, table, slots, memory, q, *own)
        sums = (floats(x, dtype) @ matrix.T + bias).reshape(n, 8, 64)
        low, high = np.split(sums[:, :6], 2, axis=2)
        cos, sin = table[:, :1], table[:, 1:]
        rotated = np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=2)
        close(floats(q, dtype).reshape(n, 4, 64), rotated[:, :4] * 0.5, dtype)
        halves = floats(memory, dtype).reshape(5, 2, 2, -1)
        keys = halves[:, :, 0].reshape(5, 2, size, 64).transpose(0, 2, 1, 3).reshape(-1, 2, 64)
        values = halves[:, :, 1].reshape(5, 2, 64, size).transpose(0, 3, 1, 2).reshape(-1, 2, 64)
        close(keys[slots], rotated[:, 4:], dtype)
        close(values[slots], sums[:, 6:], dtype)
        for stored_part in (keys, values):
            assert np.isnan(np.delete(stored_part, slots, axis=0)).all()


@pytest.mark.parametrize(
    ("fmt", "dtype", "arch"),
    [
        (Format.MXFP4, "bfloat16", "sm_90"),
        pytest.param(Format.Q4, "float16", "sm_80", marks=LARGE),
        pytest.param(Format.Q8, "float32", "sm_90", marks=LARGE),
    ],
)
def test_products_of_experts(fmt: Format, dtype: str, arch: str) -> None:
    """One by one, by tiles of few rows and of more; one expert has no rows."""
    count, used, width, inputs = 4, 2, 48, 96
    matrix, kept = Packed(fmt, count * 2 * width, inputs, half=True), STORED[dtype]
    ending = Ending(2 * width, width, gated=True, bias=True)
    spec = Experts(matrix, ending, count, used, False, kept, kept, gpu(dtype))
    kernel, (words, numbers) = Executed(linear_experts(spec), arch), packed(fmt, matrix.outputs, inputs)
    for n in (3, 40, 130):
        rng = np.random.default_rng(n)
        x, bias = stored(rng.standard_normal((n, inputs)), dtype), rng.standard_normal(matrix.outputs)
        experts = rng.choice([0, 1, 3, 3], 2 * n).astype(np.int32)
        order, begins = np.argsort(experts, kind="stable"), np.searchsorted(np.sort(experts), np.arange(count + 1))
        y, bias = stored(np.full((2 * n, width), np.nan), dtype), bias.astype(np.float32)
        kernel(x, experts, order.astype(np.int32), begins.astype(np.int32), words, bias, y)
        halves = numbers.reshape(count, 2, width, inputs)[experts].astype(np.float64)
        sums = np.einsum("phwk,pk->phw", halves, floats(x, dtype)[np.arange(2 * n) // used])
        gate, up = np.moveaxis(sums + bias.reshape(count, 2, width)[experts], 1, 0)
        close(floats(y, dtype), gate / (1 + np.exp(-gate)) * up, dtype)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("fmt", [pytest.param(f, marks=LARGE) for f in (Format.F16, Format.Q4)])
def test_every_head_has_a_matrix_of_its_own(fmt: Format, arch: str) -> None:
    heads, inputs, outputs = 3, 64, 96
    words, matrix = packed(fmt, heads * outputs, inputs)
    spec = ByHead(Packed(fmt, heads * outputs, inputs, half=True), heads, "float16", gpu("float16"))
    kernel = Executed(linear_by_head(spec), arch)
    for n in (1, 3, 17, 70):
        x = stored(np.random.default_rng(n).standard_normal((n, heads * inputs)), "float16")
        y = np.full((n, heads * outputs), np.nan, np.float16)
        kernel(x, words, y)
        rows, by_head = x.astype(np.float64).reshape(n, heads, inputs), matrix.reshape(heads, outputs, inputs)
        close(y.reshape(n, heads, outputs), np.einsum("nhk,hok->nho", rows, by_head), "float16")
