"""Routing and the products of experts against NumPy.

pytest tests/kernels/test_experts.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cupola.errors import UnsupportedError
from cupola.kernels.cpu.experts import CombineSpec, ExpertsSpec, combine, linear_experts
from cupola.kernels.cpu.isa import AVX2, Isa
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.kernels.cpu.routing import RouteSpec, route
from cupola.kernels.routing import Routing
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import pack, unpack
from kernels.kernel_cases import random_activations
from kernels.kernel_driver import INSTRUCTION_SETS, TARGETS, build

PLAIN = Routing(11, 3)
ROUTINGS = {
    "renormalised": PLAIN,
    "as-they-are": replace(PLAIN, renormalised=False, scale=2.5),
    "sigmoid": Routing(16, 4, "sigmoid", scale=2.5),
    "shared": Routing(8, 2, renormalised=False, shared_gate=True),
    "groups-by-best": Routing(12, 4, renormalised=False, scale=16.0, groups=4, groups_used=2),
    "groups-by-two": Routing(24, 4, "sigmoid", scale=2.5, groups=6, groups_used=3, group_best=2),
    "all": Routing(4, 4),
}


def expected_routes(scores: np.ndarray, bias: np.ndarray | None, routing: Routing) -> tuple[np.ndarray, np.ndarray]:
    """(chosen, weights) in float64, as `Routing` says."""
    s = scores[:, : routing.count].astype(np.float64)
    if routing.function == "sigmoid":
        v = 1 / (1 + np.exp(-s))
    else:
        v = np.exp(s - s.max(axis=1, keepdims=True))
        v /= v.sum(axis=1, keepdims=True)
    c = v if bias is None else v + bias
    groups = c.reshape(len(s), routing.groups, -1)
    best = np.sort(groups, axis=2)[:, :, -routing.group_best :].sum(axis=2)
    kept = np.argsort(-best, axis=1)[:, : routing.groups_used]
    left = np.full_like(groups, -np.inf)
    for row, which in enumerate(kept):
        left[row, which] = groups[row, which]
    chosen = np.argsort(-left.reshape(c.shape), axis=1, kind="stable")[:, : routing.used]
    w = np.take_along_axis(v, chosen, axis=1)
    w = routing.scale * (w / w.sum(axis=1, keepdims=True) if routing.renormalised else w)
    if routing.shared_gate:
        w = np.concatenate([w, 1 / (1 + np.exp(-scores[:, routing.count, None].astype(np.float64)))], axis=1)
    return chosen, w


def run_route(scores: np.ndarray, routing: Routing, bias: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """(weights, chosen, order, begins, busy)."""
    spec = RouteSpec(routing, scores.shape[1], bias is not None)
    n, count = len(scores), routing.count
    out = (
        np.zeros((n, spec.weights), np.float32),
        np.zeros((n, routing.used), np.int32),
        np.zeros(n * routing.used, np.int32),
        np.zeros(count + 1, np.int32),
        np.zeros(count + 1, np.int32),
    )
    build(route(spec))(scores, *([] if bias is None else [bias]), *out)
    return out


@pytest.mark.parametrize("name", ROUTINGS)
@pytest.mark.parametrize("biased", [False, True])
def test_rows_choose_their_experts(name: str, biased: bool) -> None:
    routing = ROUTINGS[name]
    rng = np.random.default_rng(routing.count)
    scores = 2 * rng.standard_normal((9, 32)).astype(np.float32)
    bias = 0.3 * rng.standard_normal(routing.count).astype(np.float32) if biased else None
    weights, chosen, order, begins, busy = run_route(scores, routing, bias)
    expected_chosen, expected_weights = expected_routes(scores, bias, routing)
    np.testing.assert_array_equal(chosen, expected_chosen)
    np.testing.assert_allclose(weights, expected_weights, rtol=2e-6)
    np.testing.assert_array_equal(order, np.argsort(chosen.reshape(-1), kind="stable"))
    counts = np.bincount(chosen.reshape(-1), minlength=routing.count)
    np.testing.assert_array_equal(begins, [0, *np.cumsum(counts)])
    np.testing.assert_array_equal(busy[: busy[-1]], np.flatnonzero(counts))


def test_equal_scores_take_the_first() -> None:
    _, chosen, *_ = run_route(np.zeros((1, 16), np.float32), PLAIN)
    assert chosen.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_give_experts_that_exist(value: float) -> None:
    scores = np.full((2, 16), value, np.float32)
    scores[1, 3] = 1
    _, chosen, order, begins, _ = run_route(scores, PLAIN)
    assert ((chosen >= 0) & (chosen < PLAIN.count)).all()
    assert sorted(order) == list(range(6))
    assert begins[-1] == 6


@pytest.mark.parametrize(
    "routing",
    [
        Routing(8, 9),
        Routing(8, 0),
        Routing(8, 2, groups=3),
        Routing(8, 5, groups=2),
        Routing(8, 2, groups=4, group_best=3),
    ],
)
def test_impossible_routings_are_refused(routing: Routing) -> None:
    with pytest.raises(UnsupportedError):
        routing.check()


# Products

COUNT, USED, INPUTS, OUTPUTS = 5, 2, 96, 64


def order_of(chosen: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(order, begins, busy) as `route` gives them."""
    flat = chosen.reshape(-1)
    counts = np.bincount(flat, minlength=count)
    busy = np.zeros(count + 1, np.int32)
    used = np.flatnonzero(counts)
    busy[: len(used)], busy[-1] = used, len(used)
    return np.argsort(flat, kind="stable").astype(np.int32), np.array([0, *np.cumsum(counts)], np.int32), busy


def run_experts(
    kernel: Callable[..., None],
    spec: ExpertsSpec,
    inputs: tuple[np.ndarray, ...],
    chosen: np.ndarray,
    *matrices: np.ndarray,
) -> np.ndarray:
    y = np.full((chosen.size, spec.each.width), np.nan, np.float32)
    kernel(*inputs, *order_of(chosen, spec.count), *matrices, y)
    return y


def wide(inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    """The float64 rows that the input of a product stands for."""
    if len(inputs) == 1:
        return inputs[0].astype(np.float64)
    q, s = inputs
    return (q.reshape(len(q), -1, GROUP) * s[:, :, :1].astype(np.float64)).reshape(q.shape)


BEST = INSTRUCTION_SETS[-1]
FORMATS = [fmt for fmt in Format if fmt is not Format.Q16]


@pytest.mark.parametrize(("fmt", "pairs"), [*((fmt, False) for fmt in FORMATS), (Format.Q4, True), (Format.F32, True)])
def test_each_pair_meets_its_expert(fmt: Format, pairs: bool) -> None:
    isa = BEST
    rng = np.random.default_rng(0)
    spec = ExpertsSpec(LinearSpec(fmt, INPUTS, OUTPUTS, bias=True), COUNT, USED, pairs)
    kernel = build(linear_experts(spec, isa), TARGETS[isa])
    packed = pack(rng.standard_normal((COUNT * OUTPUTS, INPUTS)).astype(np.float32), fmt)
    matrix = unpack(packed, fmt, (COUNT * OUTPUTS, INPUTS)).reshape(COUNT, OUTPUTS, INPUTS).astype(np.float64)
    bias = rng.standard_normal(COUNT * OUTPUTS).astype(np.float32)
    for n in (1, 2, 23, 90):
        chosen = np.stack([rng.permutation(COUNT - 1)[:USED] for _ in range(n)])  # nobody uses the last one
        rows = n * USED if pairs else n
        floats = rng.standard_normal((rows, INPUTS)).astype(np.float32)
        inputs = random_activations(rng, rows, INPUTS) if fmt.grouped else (floats,)
        found = run_experts(kernel, spec, inputs, chosen, packed, bias)
        x = wide(inputs) if pairs else np.repeat(wide(inputs), USED, axis=0)
        flat = chosen.reshape(-1)
        expected = np.einsum("pk,pok->po", x, matrix[flat]) + bias.reshape(COUNT, OUTPUTS)[flat]
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("fmt", "isa"),
    [(Format.F32, BEST), (Format.Q8, BEST), (Format.Q4, BEST), (Format.Q4, AVX2)],
    ids=lambda value: value.name,
)
def test_a_row_is_the_same_bits_in_any_company(fmt: Format, isa: Isa) -> None:
    if isa not in TARGETS:
        pytest.skip(f"this machine lacks {isa.name}")
    rng = np.random.default_rng(1)
    spec = ExpertsSpec(LinearSpec(fmt, INPUTS, OUTPUTS, gated=True), COUNT, USED, pairs=False)
    kernel = build(linear_experts(spec, isa), TARGETS[isa])
    packed = pack(rng.standard_normal((COUNT * OUTPUTS, INPUTS)).astype(np.float32), fmt)
    n = 77
    inputs = (
        random_activations(rng, n, INPUTS) if fmt.grouped else (rng.standard_normal((n, INPUTS)).astype(np.float32),)
    )
    chosen = np.stack([rng.permutation(COUNT)[:USED] for _ in range(n)])
    together = run_experts(kernel, spec, inputs, chosen, packed).reshape(n, USED, -1)
    for rows in (slice(5, 6), slice(30, 34), slice(40, 60)):
        alone = run_experts(kernel, spec, tuple(x[rows] for x in inputs), chosen[rows], packed)
        assert alone.tobytes() == together[rows].tobytes()


def test_gated_functions() -> None:
    rng = np.random.default_rng(2)
    x = 4 * rng.standard_normal((7, INPUTS)).astype(np.float32)
    matrix = rng.standard_normal((COUNT, OUTPUTS, INPUTS)).astype(np.float32)
    chosen = np.stack([rng.permutation(COUNT)[:USED] for _ in range(7)])
    sums = np.einsum("pk,pok->po", np.repeat(x, USED, axis=0).astype(np.float64), matrix[chosen.reshape(-1)])
    gate, up = sums[:, : OUTPUTS // 2], sums[:, OUTPUTS // 2 :]
    g, u = np.minimum(gate, 7), np.clip(up, -7, 7)
    expected = {"silu": gate / (1 + np.exp(-gate)) * up, "swiglu_clamped": g / (1 + np.exp(-1.702 * g)) * (u + 1)}
    for function, values in expected.items():
        each = LinearSpec(Format.F32, INPUTS, OUTPUTS, gated=True, function=function)
        spec = ExpertsSpec(each, COUNT, USED, pairs=False)
        packed = pack(matrix.reshape(-1, INPUTS), Format.F32)
        found = run_experts(build(linear_experts(spec, INSTRUCTION_SETS[0])), spec, (x,), chosen, packed)
        np.testing.assert_allclose(found, values, atol=1e-4 * np.abs(values).max())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_combination(shared: bool, residual: bool) -> None:
    rng = np.random.default_rng(3)
    n, width, used = 6, 1120, 3
    z = rng.standard_normal((n, used, width)).astype(np.float32)
    weights = rng.uniform(0, 1, (n, used + shared)).astype(np.float32)
    beside, r, y = (rng.standard_normal((n, width)).astype(np.float32) for _ in range(3))
    spec = CombineSpec(width, used, shared, scale=0.5, residual=residual)
    args = [z.reshape(-1, width), weights, *([beside] if shared else []), *([r] if residual else []), y]
    build(combine(spec))(*args)
    expected = np.einsum("nj,njw->nw", weights[:, :used].astype(np.float64), z)
    if shared:
        expected += weights[:, used:] * beside
    np.testing.assert_allclose(y, 0.5 * expected + (r if residual else 0), atol=1e-5)


def test_tasks_are_runs_of_whole_blocks() -> None:
    large = ExpertsSpec(LinearSpec(Format.Q4, 2048, 1536, gated=True), 128, 8, pairs=False)
    assert (large.tasks, large.run) == (8, 6)
    small = ExpertsSpec(LinearSpec(Format.Q4, 768, 2048), 128, 8, pairs=True)
    assert (small.tasks, small.run) == (4, 32)
