"""Embeddings, norms, rotary tables and routes on a GPU against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, build, packed

from cupola.kernels.gpu import rows
from cupola.kernels.gpu.norm import HeadNorm, NormSpec, norm_heads, normed
from cupola.kernels.gpu.position import rotary_table
from cupola.kernels.gpu.routing import Route, route, sort_pairs
from cupola.kernels.gpu.weights import Packed
from cupola.kernels.heads import HeadShape
from cupola.kernels.routing import Routing
from cupola.quantize.formats import Format

pytestmark = NEEDS_GPU


@pytest.mark.parametrize("fmt", Format)
def test_embeddings(fmt: Format) -> None:
    words, table = packed(fmt, 41, 64)
    ids = np.array([0, 40, 17, 40, 8, 31], np.int32)
    y = np.full((len(ids), 64), np.nan, np.float32)
    build(rows.embed(Packed(fmt, 41, 64, half=False), 1.0))(ids, words, y)
    np.testing.assert_allclose(y, table[ids], atol=1e-6)


@pytest.mark.parametrize("centered", [False, True])
def test_norms(centered: bool) -> None:
    rng, width = np.random.default_rng(0), 336  # more than a block of threads, and no multiple of it
    x = rng.standard_normal((3, width)).astype(np.float32) * 3 + 1
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    y = np.full_like(x, np.nan)
    kernel = build(normed(NormSpec(width, 1e-5, centered, bias=True), "float32", "float32", 256))
    kernel(x, weight, bias, y)
    wide = x.astype(np.float64) - (x.mean(axis=1, keepdims=True, dtype=np.float64) if centered else 0)
    expected = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * weight + bias
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(("by_head", "centered"), [(True, False), (True, True), (False, False)])
def test_norms_of_heads(by_head: bool, centered: bool) -> None:
    """Each head by itself with weights of its own, or all of q and all of k; values pass."""
    rng, heads = np.random.default_rng(1), HeadShape(6, 2, 80)
    sizes = [480, 160, 160]
    qkv = rng.standard_normal((3, 832)).astype(np.float32) * 2 + 1  # padded
    q_norm, k_norm = (rng.standard_normal(size).astype(np.float32) for size in sizes[:2])
    y = np.full_like(qkv, np.nan)
    build(norm_heads(HeadNorm(heads, 832, by_head, 1e-5, centered, "float32"), 256))(qkv, q_norm, k_norm, y)
    q, k, v = np.split(qkv[:, :800].astype(np.float64), np.cumsum(sizes)[:2], axis=1)
    parts = []
    for part, weight in ((q, q_norm), (k, k_norm)):
        grouped = part.reshape(3, -1, 80 if by_head else part.shape[1])
        grouped -= grouped.mean(axis=2, keepdims=True) if centered else 0
        normed_part = grouped / np.sqrt((grouped**2).mean(axis=2, keepdims=True) + 1e-5)
        parts.append(normed_part.reshape(part.shape) * weight)
    np.testing.assert_allclose(y[:, :800], np.hstack([*parts, v]), atol=1e-5)


def test_cosines_and_sines_of_far_positions() -> None:
    positions = np.array([0, 1, 2, 777, 4095, 131071], np.int32)
    frequencies = np.array([1.0, 0.5, 0.1, 1e-3], np.float32)
    table = np.full((len(positions), 2, 4), np.nan, np.float32)
    build(rotary_table(4, 1.0))(positions, frequencies, table)
    angles = (positions[:, None].astype(np.float32) * frequencies).astype(np.float64)
    np.testing.assert_allclose(table, np.stack([np.cos(angles), np.sin(angles)], axis=1), atol=2e-6)


@pytest.mark.parametrize(
    "routing",
    [
        Routing(6, 3),
        Routing(16, 4, "sigmoid", scale=2.5, groups=4, groups_used=2, group_best=2),
        Routing(5, 2, renormalised=False, shared_gate=True),
    ],
)
def test_routes(routing: Routing) -> None:
    rng, n = np.random.default_rng(3), 9
    scores = rng.standard_normal((n, 32)).astype(np.float32)
    bias = rng.standard_normal(routing.count).astype(np.float32)
    weights = np.full((n, routing.used + routing.shared_gate), np.nan, np.float32)
    experts = np.full(n * routing.used, -1, np.int32)
    build(route(Route(routing, 32, "float32", bias=True)))(scores, bias, weights, experts)
    for row in range(n):
        chosen, expected = _routed(routing, scores[row].astype(np.float64), bias)
        np.testing.assert_array_equal(experts.reshape(n, -1)[row], chosen)
        np.testing.assert_allclose(weights[row], expected, atol=1e-6)
    order, begins = np.full_like(experts, -1), np.full(routing.count + 1, -1, np.int32)
    build(sort_pairs(routing.count))(experts, order, begins)
    np.testing.assert_array_equal(order, np.argsort(experts, kind="stable"))
    np.testing.assert_array_equal(begins, np.searchsorted(np.sort(experts), np.arange(routing.count + 1)))


def _routed(routing: Routing, scores: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s = scores[: routing.count]
    values = 1 / (1 + np.exp(-s)) if routing.function == "sigmoid" else np.exp(s) / np.exp(s).sum()
    choice = values + bias
    groups = choice.reshape(routing.groups, -1)
    best = np.sort(groups, axis=1)[:, -routing.group_best :].sum(axis=1)
    groups[np.argsort(-best, kind="stable")[routing.groups_used :]] = -np.inf
    chosen = np.argsort(-choice, kind="stable")[: routing.used]
    weights = values[chosen] / (values[chosen].sum() if routing.renormalised else 1) * routing.scale
    gate = [1 / (1 + np.exp(-scores[routing.count]))] if routing.shared_gate else []
    return chosen, np.concatenate([weights, gate])


@pytest.mark.parametrize("pairs", [3, 256, 1000])
def test_pairs_are_sorted_by_expert(pairs: int) -> None:
    experts = np.random.default_rng(pairs).integers(0, 7, pairs).astype(np.int32)
    order, begins = np.full(pairs, -1, np.int32), np.full(10, -1, np.int32)
    build(sort_pairs(9))(experts, order, begins)
    np.testing.assert_array_equal(order, np.argsort(experts, kind="stable"))
    np.testing.assert_array_equal(begins, np.searchsorted(np.sort(experts), np.arange(10)))
