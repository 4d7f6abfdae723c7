"""The kernels of latent attention with arguments of many shapes, for the tests that ask the same of all kernels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cupola.kernels.cpu.latent import ByHeadSpec, append_latent, linear_by_head, split_queries
from cupola.kernels.cpu.latent_attention import latent_attention
from cupola.kernels.cpu.latent_pages import LatentLayout
from cupola.kernels.latent_shape import LatentShape
from cupola.quantize.formats import Format
from cupola.quantize.layouts import pack
from kernels.kernel_cases import ROWS, Case, random_activations
from kernels.kernel_driver import INSTRUCTION_SETS
from kernels.latent_cases import LatentPool, LatentRows, latent_arguments

SHAPE = LatentShape(heads=6, latent=64, rotary=32, plain=32, value=16)
LENGTHS = (300, 17, 256, 1)


def latent_cases() -> Iterator[Case]:
    """Every kernel, pages of floats and of integers."""
    rng, isa = np.random.default_rng(0), INSTRUCTION_SETS[-1]
    slots = np.array([0, 16 * 9 + 15, 50, 33, 16 * 7 + 2], np.int32)
    table = rng.uniform(-1, 1, (5, 2, 16)).astype(np.float32)
    x, weight = rng.standard_normal((5, 96), np.float32), rng.standard_normal(64, np.float32)
    for dtype in ("float32", "int16"):
        layout = LatentLayout.of(SHAPE, 16, dtype)
        call = (x, weight, table, slots, np.zeros((10, layout.elements), dtype))
        yield Case(f"append_latent {dtype}", append_latent(layout, 96, 1e-6), (call,), inputs=4)
        calls = tuple(_attention_call(layout, rows) for rows in (1, 1000, 9))
        yield Case(f"latent_attention {dtype}", latent_attention(layout, isa), calls, inputs=7)
    queries = rng.standard_normal((5, 6 * 64), np.float32)
    call = (queries, table, np.zeros((5, 6 * 32), np.float32), np.zeros((5, 6 * 32), np.float32))
    yield Case("split_queries", split_queries(SHAPE, 6 * 64, 0.5), (call,), inputs=2)
    packed = pack(rng.standard_normal((6 * 48, 32), np.float32), Format.Q4)
    calls = tuple((*random_activations(rng, n, 6 * 32), packed, np.zeros((n, 6 * 48), np.float32)) for n in ROWS)
    yield Case("linear_by_head", linear_by_head(ByHeadSpec(Format.Q4, 6, 32, 48), isa), calls, inputs=3)


def _attention_call(layout: LatentLayout, rows: int) -> tuple[np.ndarray, ...]:
    """A step in which each sequence has its last `rows` rows; every page of the pool is in use."""
    pool, rng = LatentPool(layout, sum(-(-n // layout.page_size) for n in LENGTHS)), np.random.default_rng(1)
    parts = []
    for length in LENGTHS:
        shape = (min(rows, length), layout.heads.queries)
        q, r = (rng.standard_normal((*shape, size), np.float32) * np.float32(0.1) for size in (layout.heads.dim, 32))
        parts.append(LatentRows(q, r, length, pool.add(length)))
    return latent_arguments(layout, pool.pages, parts)
