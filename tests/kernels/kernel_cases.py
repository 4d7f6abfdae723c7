"""Every kernel with arguments of many shapes, for the tests that ask the same of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from cupola.kernels.cpu import activation, rows
from cupola.kernels.cpu.activation import Codes, NormSpec
from cupola.kernels.cpu.attention import attention
from cupola.kernels.cpu.attention_step import AttentionSpec
from cupola.kernels.cpu.encoder_attention import EncoderAttentionSpec, encoder_attention
from cupola.kernels.cpu.encoder_rows import EmbedSpec, pool, project
from cupola.kernels.cpu.encoder_rows import embed as embed_encoder
from cupola.kernels.cpu.experts import CombineSpec, ExpertsSpec, combine, linear_experts
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.layer_norm import LayerNormSpec, activate, layer_norm
from cupola.kernels.cpu.linear import linear
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.kernels.cpu.pages import HeadShape, PageLayout
from cupola.kernels.cpu.position import AppendSpec, HeadNormSpec, norm_heads, rotary_table, rotate_append
from cupola.kernels.cpu.routing import RouteSpec, route
from cupola.kernels.routing import Routing
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import pack
from cupola.quantize.wide import LIMIT
from kernels.paged import Pool, Rows, output_arguments, step_arguments

Arguments = tuple[np.ndarray, ...]
ROWS = (1, 2, 3, 5, 6, 7, 8, 21)


@dataclass(frozen=True)
class Case:
    """One kernel and several calls of it; it writes into the arguments behind the first `inputs`."""

    name: str
    function: tirx.PrimFunc
    calls: tuple[Arguments, ...]
    inputs: int


def random_activations(rng: np.random.Generator, count: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """(q, s) of `count` quantized rows with values of full range."""
    q = rng.integers(-127, 128, (count, inputs), np.int8)
    scale = rng.uniform(0.001, 0.1, (count, inputs // GROUP)).astype(np.float32)
    total = q.reshape(count, -1, GROUP).sum(axis=-1, dtype=np.int32).astype(np.float32)
    return q, np.stack([scale, total], axis=-1)


def random_wide_activations(rng: np.random.Generator, count: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """The same in 14 bits."""
    q = rng.integers(-LIMIT, LIMIT + 1, (count, inputs), np.int16)
    return q, rng.uniform(0.00001, 0.001, (count, inputs // GROUP)).astype(np.float32)


def linear_case(spec: LinearSpec, isa: Isa) -> Case:
    """A matrix product over ROWS rows."""
    rng = np.random.default_rng(spec.outputs)
    packed = pack(rng.standard_normal((spec.outputs, spec.inputs)).astype(np.float32), spec.format)
    calls = []
    for count in ROWS:
        x = rng.standard_normal((count, spec.inputs)).astype(np.float32)
        inputs = random_activations(rng, count, spec.inputs) if spec.format.grouped else (x,)
        if spec.format is Format.Q16:
            inputs = random_wide_activations(rng, count, spec.inputs)
        residual = rng.standard_normal((count, spec.width)).astype(np.float32)
        y = np.zeros((count, spec.width), np.float32)
        bias = rng.standard_normal(spec.outputs).astype(np.float32)
        calls.append((*inputs, packed, *([bias] if spec.bias else []), *([residual] if spec.residual else []), y))
    name = f"{spec.name} {spec.outputs}x{spec.inputs} {isa.name}"
    return Case(name, linear(spec, isa), tuple(calls), inputs=len(calls[0]) - 1)


def linear_cases(isa: Isa) -> Iterator[Case]:
    """Products with the instructions of one instruction set."""
    for fmt in Format:
        yield linear_case(LinearSpec(fmt, inputs=32, outputs=41), isa)
        yield linear_case(LinearSpec(fmt, inputs=32 * 19, outputs=16, residual=True), isa)
        yield linear_case(LinearSpec(fmt, inputs=96, outputs=64, gated=True), isa)
    # A bias that ends within the last block, and one that ends at another's beginning.
    yield linear_case(
        LinearSpec(Format.F32, inputs=32, outputs=41, bias=True, function="gelu", scale=0.5, cap=3.0), isa
    )
    yield linear_case(LinearSpec(Format.F32, inputs=32, outputs=64, bias=True, gated=True, function="relu"), isa)


def expert_cases(isa: Isa) -> Iterator[Case]:
    """Products of experts, where the first and the last one are used, and one row has them alone."""
    rng, count, used, outputs, inputs = np.random.default_rng(0), 5, 2, 48, 96
    for fmt in (Format.F32, Format.F16, Format.Q8, Format.Q4, Format.MXFP4):
        spec = ExpertsSpec(LinearSpec(fmt, inputs, outputs, bias=True), count, used, pairs=fmt is Format.Q8)
        packed = pack(rng.standard_normal((count * outputs, inputs)).astype(np.float32), fmt)
        bias = rng.standard_normal(count * outputs).astype(np.float32)
        calls = []
        for n in ROWS:
            chosen = np.stack([[0, count - 1], *(rng.permutation(count)[:used] for _ in range(n - 1))]).reshape(-1)
            rows = n * used if spec.pairs else n
            x = rng.standard_normal((rows, inputs)).astype(np.float32)
            busy = np.zeros(count + 1, np.int32)
            in_use, counts = np.unique(chosen), np.bincount(chosen, minlength=count)
            busy[: len(in_use)], busy[-1] = in_use, len(in_use)
            order = (
                np.argsort(chosen, kind="stable").astype(np.int32),
                np.array([0, *np.cumsum(counts)], np.int32),
                busy,
            )
            q = random_activations(rng, rows, inputs) if fmt.grouped else (x,)
            calls.append((*q, *order, packed, bias, np.zeros((n * used, outputs), np.float32)))
        yield Case(f"experts {fmt.value} {isa.name}", linear_experts(spec, isa), tuple(calls), inputs=len(calls[0]) - 1)


def routing_cases() -> Iterator[Case]:
    """Routing with and without a selection bias and groups, and the sum over experts."""
    rng = np.random.default_rng(0)
    for routing in (Routing(11, 3, shared_gate=True), Routing(12, 4, "sigmoid", groups=4, groups_used=2, group_best=2)):
        spec = RouteSpec(routing, stride=16, biased=routing.groups > 1)
        calls = []
        for n in ROWS:
            given = [rng.standard_normal((n, 16)).astype(np.float32)]
            given += [rng.standard_normal(routing.count).astype(np.float32)] if spec.biased else []
            chosen = np.zeros((n, routing.used), np.int32)
            lists = (np.zeros(chosen.size, np.int32), *(np.zeros(routing.count + 1, np.int32) for _ in range(2)))
            calls.append((*given, np.zeros((n, spec.weights), np.float32), chosen, *lists))
        yield Case(f"route {routing.function}", route(spec), tuple(calls), inputs=len(given))
    width, used = 1120, 3
    calls = []
    for n in ROWS:
        z, weights = rng.standard_normal((n * used, width)), rng.uniform(0, 1, (n, used + 1))
        beside, r = rng.standard_normal((2, n, width))
        given = [array.astype(np.float32) for array in (z, weights, beside, r)]
        calls.append((*given, np.zeros((n, width), np.float32)))
    yield Case("combine", combine(CombineSpec(width, used, shared=True, residual=True)), tuple(calls), inputs=4)


def activation_cases() -> Iterator[Case]:
    width, groups = 96, 3
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(width).astype(np.float32)
    xs = [rng.standard_normal((count, width)).astype(np.float32) for count in ROWS]

    def quantized(x: np.ndarray) -> Arguments:
        return np.zeros(x.shape, np.int8), np.zeros((len(x), groups, 2), np.float32)

    yield Case("quantize", activation.quantize(width), tuple((x, *quantized(x)) for x in xs), inputs=1)
    for norm in (NormSpec(1e-5), NormSpec(1e-5, centered=True, bias=True)):
        vectors = [weight, weight] if norm.bias else [weight]
        calls = tuple((x, *vectors, np.zeros_like(x)) for x in xs)
        inputs = 1 + len(vectors)
        yield Case(f"{norm}", activation.normed(width, norm, None), calls, inputs)
        quantizing = tuple((x, *vectors, *quantized(x)) for x in xs)
        yield Case(f"{norm} quantize", activation.normed(width, norm, "int8"), quantizing, inputs)
        adding = tuple((x, x.copy(), *vectors, np.zeros_like(x)) for x in xs)
        yield Case(f"{norm} add", activation.add_normed(width, norm), adding, inputs + 1)


def encoder_cases() -> Iterator[Case]:
    """What only encoders have."""
    width, rng = 96, np.random.default_rng(0)
    vectors = [rng.standard_normal(width).astype(np.float32) for _ in range(3)]
    codes: Mapping[Codes, Callable[[int], Arguments]] = {
        None: lambda _: (),
        "int8": lambda n: (np.zeros((n, width), np.int8), np.zeros((n, 3, 2), np.float32)),
        "int16": lambda n: (np.zeros((n, width), np.int16), np.zeros((n, 3), np.float32)),
    }
    xs = [rng.standard_normal((count, width)).astype(np.float32) for count in ROWS]
    for kind, out in codes.items():
        calls = tuple((x, *vectors, np.zeros_like(x), *out(len(x))) for x in xs)
        yield Case(f"layer_norm {kind}", layer_norm(LayerNormSpec(width, 1e-5), kind), calls, inputs=4)
        calls = tuple((x, vectors[0], *(out(len(x)) or (np.zeros_like(x),))) for x in xs)
        yield Case(f"gelu {kind}", activate(width, "gelu", kind), calls, inputs=2)
    wide = tuple((x, *codes["int16"](len(x))) for x in xs)
    yield Case("quantize_wide", activation.quantize(width, "int16"), wide, inputs=1)
    indptr = np.array([0, 1, 9, 21], np.int32)
    for how in ("mean", "cls", "last"):
        call = (xs[-1], indptr, np.zeros((3, width), np.float32))
        yield Case(f"pool {how}", pool(width, how, normalize=True), (call,), inputs=2)
    ids, positions, kinds = (np.array(v, np.int32) for v in ([40, 0, 7], [8, 0, 3], [1, 0, 1]))
    tables = [rng.standard_normal((rows, width)).astype(np.float32) for rows in (41, 10, 2)]
    tables[0] = tables[0].astype(np.float16)
    words, places, types = tables
    call = (ids, words, positions, places, kinds, types, *vectors[:2], np.zeros((3, width), np.float32))
    yield Case("encoder_embed", embed_encoder(EmbedSpec(width, 41, 10, 2, 1, "float16", 1e-5)), (call,), inputs=8)
    call = (xs[-1], rng.standard_normal((3, width)).astype(np.float32), np.ones(3, np.float32), np.zeros((21, 3), "f4"))
    yield Case("project", project(width, 3), (call,), inputs=3)


def encoder_attention_cases(isa: Isa) -> Iterator[Case]:
    """Attention of encoders over sequences of one token, of a whole block, and of the most tokens."""
    rng = np.random.default_rng(0)
    lengths = (1, 5, 128, 8, 150)
    indptr = np.cumsum([0, *lengths]).astype(np.int32)
    for dtype in ("float32", "int16"):
        spec = EncoderAttentionSpec(heads=3, dim=16, max_tokens=150, dtype=dtype)
        qkv = rng.standard_normal((indptr[-1], 3 * spec.width)).astype(np.float32)
        bias = rng.standard_normal(3 * spec.width).astype(np.float32)
        out = np.zeros((indptr[-1], spec.width), np.float32)
        yield Case(f"encoder attention {dtype}", encoder_attention(spec, isa), ((qkv, indptr, bias, out),), inputs=3)
    spec = EncoderAttentionSpec(3, 16, 150, "float32", biased=False, rotary_dim=16, window=20, buckets=4)
    table = rng.uniform(-1, 1, (indptr[-1], 2, 8)).astype(np.float32)
    bucket_of = rng.integers(0, 4, 299, np.int32)
    call = (qkv, indptr, table, bucket_of, rng.standard_normal((4, 3)).astype(np.float32), out)
    yield Case("encoder attention by distance", encoder_attention(spec, isa), (call,), inputs=5)


def row_cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((41, 64)).astype(np.float32)
    ids = np.array([0, 40, 17, 40, 8, 7, 31], np.int32)
    for fmt in Format:
        call = (ids, pack(table, fmt), np.zeros((len(ids), 64), np.float32))
        yield Case(f"embed {fmt.value}", rows.embed(fmt, 41, 64), (call,), inputs=2)
    yield Case("take", rows.take(64), ((table, ids, np.zeros((len(ids), 64), np.float32)),), inputs=2)


def position_cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    positions = np.array([3, 0, 7, 1000, 5], np.int32)
    slots = np.array([0, 16 * 9 + 15, 50, 33, 16 * 7 + 2], np.int32)  # the first and the last of ten pages
    frequencies = rng.uniform(0, 1, 16).astype(np.float32)
    table = rng.uniform(-1, 1, (5, 2, 16)).astype(np.float32)
    yield Case("rotary_table", rotary_table(16, 1.0), ((positions, frequencies, np.zeros_like(table)),), inputs=2)
    heads = HeadShape(6, 2, 64)
    qkv = rng.standard_normal((5, 10 * 64)).astype(np.float32)
    for dtype in ("float16", "float32", "int16", "int8"):
        layout = PageLayout(heads, 16, dtype)
        call = (qkv, table, slots, np.zeros((10, layout.elements), dtype), np.zeros((5, 6 * 64), np.float32))
        spec = AppendSpec(heads, layout, 10 * 64, rotary_dim=32)
        yield Case(f"rotate_append {dtype}", rotate_append(spec), (call,), inputs=3)

    norms = [rng.standard_normal(count * 64).astype(np.float32) for count in (6, 2)]
    norm = HeadNormSpec(heads, 10 * 64, by_head=True, eps=1e-5, centered=False)
    yield Case("norm_heads", norm_heads(norm), ((qkv, *norms, np.zeros_like(qkv)),), inputs=3)


def attention_cases(isa: Isa) -> Iterator[Case]:
    """Attention over pages; products of integers with the instructions of `isa`."""
    grouped, single = HeadShape(9, 3, 64), HeadShape(4, 4, 32)
    for spec in (
        AttentionSpec(grouped, PageLayout(grouped, 16, "int16")),
        AttentionSpec(grouped, PageLayout(grouped, 16, "float16")),
        AttentionSpec(single, PageLayout(single, 16, "float32")),
        AttentionSpec(single, PageLayout(single, 8, "int8"), window=40, soft_cap=2.0, sinks=True),
    ):
        calls = tuple(_attention_call(spec, first) for first in (lambda n: n - 1, lambda _: 0, lambda n: n // 2))
        heads, name = spec.heads, f"attention {spec.pages.dtype}"
        inputs = 7 if spec.sinks else 6
        yield Case(f"{name} {heads.queries}-{heads.keys}-{heads.dim}", attention(spec, isa), calls, inputs)


def _attention_call(spec: AttentionSpec, first_row: Callable[[int], int]) -> Arguments:
    """A step in which each sequence has the rows from `first_row(length)` on; every page of the pool is in use."""
    lengths = (300, 17, 256, 1)
    heads = spec.heads
    pool = Pool(spec.pages, num_pages=sum(-(-n // spec.pages.page_size) for n in lengths))
    rng = np.random.default_rng(1)
    parts = []
    for length in lengths:
        queries = rng.standard_normal((length - first_row(length), heads.queries, heads.dim)) * heads.dim**-0.5
        parts.append(Rows(queries.astype(np.float32), length, pool.add(length)))
    q, *tables = step_arguments(spec.pages, parts)
    sinks = [rng.standard_normal(heads.queries).astype(np.float32)] if spec.sinks else []
    return (q, pool.pages, *tables, *sinks, *output_arguments(spec, len(q), len(tables[2]), len(parts)))
