"""Attention on matrix units against float64, with every instruction of a warp taken apart so that WebGPU can run it.

Tensors of 16-bit floats are words here, because WebGPU cannot look at one tensor in two ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, Kernel, build
from matrix_model import Model
from test_gpu_attention import exact
from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, i32, let, select
from cupola.kernels.gpu import attention_spec
from cupola.kernels.gpu.attention import Attention
from cupola.kernels.gpu.attention_decode import parts_on_units
from cupola.kernels.gpu.attention_merge import merge
from cupola.kernels.gpu.attention_prompt import PromptTile, tiles_on_units
from cupola.kernels.gpu.attention_warp import Warp
from cupola.kernels.gpu.emit import Block, kernel, registers, shared, size_var, sync, u32
from cupola.kernels.gpu.pages import GpuPages, MatrixPages, pages_for_units
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.heads import HeadShape

pytestmark = NEEDS_GPU


@dataclass(frozen=True)
class Apart:
    """The warp of `attention_warp.py` by loads and stores of single words, and by memory of the block."""

    block: Block
    model: Model
    scratch: Span

    @classmethod
    def begin(cls, block: Block, *, late: bool) -> Apart:
        return cls(block, Model.begin(block, "bfloat16", late), shared(block.threads))

    def multiply(self, a: Span, a_at: int, b: Span, b_at: int, c: Span, c_at: int) -> None:
        self.model.multiply(a, a_at, b, b_at, c, c_at)

    def pair(self, low: Expr, high: Expr) -> Expr:
        return self.model.pair(low, high)

    def load(self, words: Span, at: int, memory: Span, line: Expr, *, transposed: bool = False) -> None:
        self.model.load(words, at, memory, line, transposed=transposed)

    def fetch(self, source: Span, at: Expr, target: Span, places: Sequence[int]) -> None:
        for i, place in enumerate(places):
            target.put(place, source.at(at + i))

    pick = fetch

    def copy(self, source: Span, at: Expr, target: Span, to: Expr, size: Expr | None = None) -> None:
        words = [source.at(at + i) for i in range(4)]
        if size is not None:
            halves = [select(size >= 4 * i + 2, u32(0xFFFF), u32(0)) for i in range(4)]
            masks = [select(size >= 4 * i + 4, u32(0xFFFFFFFF), half) for i, half in enumerate(halves)]
            words = [let(word & mask) for word, mask in zip(words, masks, strict=True)]
        moved = registers(4, "uint32")
        for i, word in enumerate(words):
            moved.put(i, word)
        self.model.copy(target, to, moved, i32(0))

    def arrived(self) -> None:
        self.model.commit()
        self.model.wait(0)

    def exp2(self, x: Expr) -> Expr:
        return let(tirx.exp2(x))

    def quad_max(self, value: Expr) -> Expr:
        return self._over_quad(value, tirx.max)

    def quad_sum(self, value: Expr) -> Expr:
        return self._over_quad(value, lambda a, b: a + b)

    def any(self, condition: Expr) -> Expr:
        return condition

    def _over_quad(self, value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        sync()
        self.scratch.put(self.block.thread, value)
        sync()
        first = let(self.block.thread & i32(~3))
        for distance in range(1, 4):
            other = let(first + ((self.block.thread + distance) & i32(3)))
            value = let(combine(value, self.scratch.at(other)))
        return value


@dataclass(frozen=True)
class ApartUnit:
    """Args: late: copies come when they are waited for, and no sooner."""

    late: bool

    def begin(self, block: Block) -> Warp:
        return Apart.begin(block, late=self.late)


def emitted(spec: Attention, tile: PromptTile, *, late: bool) -> tirx.PrimFunc:
    """All three grids, as `attention` launches them; rows of prompts go to y, others, as floats, to z."""
    b, n, p, b1, pages, count = (size_var(name) for name in ("b", "n", "p", "b1", "pages", "slots"))
    heads = spec.pages.heads
    width = heads.queries * heads.dim
    args = {
        "q": Arg((n, width // 2), "uint32"),
        "pages": Arg((pages, spec.pages.elements // 2), "uint32"),
        "q_indptr": Arg((b1,), "int32"),
        "page_indptr": Arg((b1,), "int32"),
        "page_ids": Arg((p,), "int32"),
        "kv_len": Arg((b,), "int32"),
        "sinks": Arg((heads.queries,), "float32"),
        "y": Arg((n, width // 2), "uint32"),
        "z": Arg((n, width), "float32"),
        "partials": Arg((count, heads.queries, heads.dim + 2), "float32"),
    }

    def body(**t: Span) -> None:
        tiles_on_units(spec, ApartUnit(late), t, n, b, tile)
        parts_on_units(spec, ApartUnit(late=False), t, b, p)
        merge(spec, {**t, "y": t["z"]}, b)

    return kernel("attention", args, body)


def spec_of(queries: int, keys: int, dim: int, page_size: int, **more: object) -> Attention:
    pages = pages_for_units(GpuPages(HeadShape(queries, keys, dim), page_size, "uint16"))
    assert isinstance(pages, MatrixPages)
    return Attention(pages, Gpu(), "uint16", **more)  # type: ignore[arg-type]


# Small, because compilers of shaders take long for hundreds of exchanges between lanes. A step and a half of
# components; two steps of tokens; all options; heads in two spans.
CASES = {
    "plain": (spec_of(6, 2, 48, 16), 2, 32),
    "long": (spec_of(4, 2, 16, 16), 1, 64),
    "all": (spec_of(5, 1, 16, 8, window=50, soft_cap=3.0, sinks=True), 2, 32),
    "many heads": (spec_of(17, 1, 16, 32), 1, 32),
}


MINUTES = pytest.mark.families  # of lavapipe's compiler: `make families-gpu`


@pytest.mark.parametrize(
    ("name", "late"),
    [
        ("all", False),
        pytest.param("plain", False, marks=MINUTES),
        pytest.param("long", True, marks=MINUTES),
        pytest.param("many heads", False, marks=MINUTES),
    ],
)
def test_rows_see_what_they_should(name: str, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if late:  # and one part for each sequence, through which warps go in several rounds
        monkeypatch.setattr(attention_spec, "BLOCKS", 1)
    spec, warps, tokens = CASES[name]
    kernel = build(emitted(spec, PromptTile.sized(spec, warps, tokens), late=late))
    for lengths, rows in (((700, 17, 130), (1, 1, 1)), ((300, 17, 130), (7, 1, 130))):
        check(spec, kernel, lengths, rows)


def check(spec: Attention, kernel: Kernel, lengths: Sequence[int], rows: Sequence[int]) -> None:
    rng, heads, layout = np.random.default_rng(0), spec.pages.heads, spec.pages
    counts = [-(-length // layout.page_size) for length in lengths]
    halves = np.full((sum(counts) + 1, heads.keys, 2, layout.half), np.nan, np.float32)
    ids = rng.permutation(len(halves)).astype(np.int32)
    begins, indptr = (np.cumsum([0, *sizes]).astype(np.int32) for sizes in (counts, rows))
    q = rounded(rng.standard_normal((indptr[-1], heads.queries, heads.dim)) * heads.dim**-0.5)
    sinks = rng.standard_normal(heads.queries).astype(np.float32)
    expected = []
    for s, length in enumerate(lengths):
        keys, values = rounded(rng.standard_normal((2, length, heads.keys, heads.dim)))
        for token in range(length):
            page, place = halves[ids[begins[s] + token // layout.page_size]], token % layout.page_size
            page[:, 0].reshape(heads.keys, -1, heads.dim)[:, place] = keys[token]
            page[:, 1].reshape(heads.keys, heads.dim, -1)[:, :, place] = values[token]
        for i in range(rows[s]):
            seen = length - rows[s] + i + 1
            expected.append(exact(spec, q[indptr[s] + i], keys[:seen], values[:seen], sinks))
    count, width = int(spec.slots(len(ids), len(lengths))), heads.queries * heads.dim
    y, z = np.zeros((indptr[-1], width // 2), np.uint32), np.full((indptr[-1], width), np.nan, np.float32)
    partials = np.zeros((count, heads.queries, heads.dim + 2), np.float32)
    kernel(as_words(q), as_words(halves), indptr, begins, ids, np.array(lengths, np.int32), sinks, y, z, partials)
    of_prompts = np.repeat(np.array(rows) > 1, rows)
    found = np.where(of_prompts[:, None], as_floats(y), z)
    np.testing.assert_allclose(found.reshape(len(q), heads.queries, -1), np.array(expected), atol=1e-2)


def rounded(values: np.ndarray) -> np.ndarray:
    """To bfloat16."""
    codes = values.astype(np.float32).view(np.uint32)
    return ((codes + 0x7FFF + ((codes >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def as_words(values: np.ndarray) -> np.ndarray:
    """Two bfloat16 in a word."""
    codes = (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)
    return codes.reshape(len(values), -1).view(np.uint32)


def as_floats(words: np.ndarray) -> np.ndarray:
    return (words.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
