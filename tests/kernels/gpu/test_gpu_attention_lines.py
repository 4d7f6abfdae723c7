"""Keys and values on their way through memory of the block: every lane picks what it should, of heads of all sizes."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, build
from test_gpu_attention_units import Apart, as_floats, as_words, rounded, spec_of

from cupola.kernels.emit import Arg, Span, i32, let
from cupola.kernels.gpu.attention_fragments import Fragments
from cupola.kernels.gpu.attention_lines import BlockCopies, Lines, Source
from cupola.kernels.gpu.attention_softmax import Lane
from cupola.kernels.gpu.emit import kernel, launch, size_var, sync
from cupola.kernels.gpu.matrix_unit import WARP

pytestmark = NEEDS_GPU
SEEN, START = 75, 32  # the last block has tokens that nobody sees


@pytest.mark.parametrize(("dim", "tokens", "page_size"), [(32, 64, 16), (80, 32, 8), (64, 32, 64)])
def test_lanes_pick_their_keys_and_values(dim: int, tokens: int, page_size: int) -> None:
    """Of a block of tokens, some of which nobody sees: lane 4 g + t has 8 components of the key of the token
    8 (g / 2) + 2 j + g % 2, and 8 tokens of the component 8 n + g of the values."""
    spec = spec_of(2, 2, dim, page_size)
    steps, tiles = range(tokens // 32), range(dim // 8)
    widths = [4 if dim - 32 * step >= 32 else 2 for step in range(-(-dim // 32))]
    count = len(steps) * (4 * sum(widths) + len(tiles) * 4)

    def body(pages: Span, page_ids: Span, kv_len: Span, found: Span) -> None:
        with launch(WARP, 1) as block:
            arguments = {"pages": pages, "page_ids": page_ids}
            warp, lane = Apart.begin(block, late=False), Lane.of(block.thread)
            fragments = Fragments.of(warp, lane, dim, 0.0, (pages, i32(0), i32(0)), kept=False)
            source = Source(spec, arguments, i32(1), i32(1), kv_len.at(0))
            copies = BlockCopies.begin(source, tokens, block, warp)
            keys, values = copies.readers(fragments)
            copies.copy_keys(i32(START))
            copies.copy_values(i32(START))
            sync()
            picked = [keys(u, j, step) for u in steps for j in range(4) for step in range(len(widths))]
            picked += [values(u, n, 0) for u in steps for n in tiles]
            sizes = [width for _ in steps for _ in range(4) for width in widths] + [4] * (len(steps) * len(tiles))
            at = 0
            for (words, first), size in zip(picked, sizes, strict=True):
                for i in range(size):
                    found.put(let(block.thread * count + at + i), words.at(first + i))
                at += size

    num_pages, p = size_var("num_pages"), size_var("p")
    args = {
        "pages": Arg((num_pages, spec.pages.elements // 2), "uint32"),
        "page_ids": Arg((p,), "int32"),
        "kv_len": Arg((1,), "int32"),
        "found": Arg((WARP, count), "uint32"),
    }
    rng, length = np.random.default_rng(0), -(-SEEN // page_size)
    ids = rng.permutation(length + 1).astype(np.int32)
    halves = rounded(rng.standard_normal((length + 1, 2, 2, spec.pages.half)))
    found = np.zeros((WARP, count), np.uint32)
    build(kernel("picked", args, body))(as_words(halves), ids, np.array([SEEN], np.int32), found)
    mine = halves[ids[1:], 1]  # the second head, pages in order
    keys = mine[:, 0].reshape(-1, dim)
    values = mine[:, 1].reshape(length, dim, page_size).transpose(0, 2, 1).reshape(-1, dim).copy()
    values[SEEN:] = 0
    for thread in range(WARP):
        np.testing.assert_array_equal(as_floats(found[thread]), expected(thread, keys, values, tokens))


def expected(thread: int, keys: np.ndarray, values: np.ndarray, tokens: int) -> np.ndarray:
    """What a lane picks, in this order: keys of 32 tokens, tile, step; values of 32 tokens, tile."""
    g, t = divmod(thread, 4)
    dim, picked = keys.shape[1], []
    for u in range(0, tokens, 32):
        for j in range(4):
            token = min(START + u + 8 * (g // 2) + 2 * j + g % 2, SEEN - 1)
            for first in range(0, dim, 32):
                size = min(8, (dim - first) // 4)
                picked.append(keys[token, first + size * t :][:size])
    for u in range(0, tokens, 32):
        for n in range(dim // 8):
            there = np.zeros(8, np.float32)
            part = values[START + u + 8 * t :][:8, 8 * n + g]
            there[: len(part)] = part
            picked.append(there)
    return np.concatenate(picked)


@pytest.mark.parametrize("chunks", [4, 8, 10, 12, 16, 24, 32])
def test_no_two_of_eight_lanes_meet_in_a_bank(chunks: int) -> None:
    """By the picture of `attention_lines.py`: two neighbouring lines, four neighbouring chunks of each."""
    lines = Lines.of(0, 16, chunks)
    assert lines.stride >= chunks
    for line in range(0, 16, 2):
        for first in range(0, chunks - chunks % 4, 4):
            banks = {place(lines, line + i, first + j) % 8 for i in range(2) for j in range(4)}
            assert len(banks) == 8


def place(lines: Lines, line: int, chunk: int) -> int:
    """Where it lies, in chunks."""
    shuffled = chunk ^ ((line & 1) << 2 | line & 2) if lines.shuffled else chunk
    return line * lines.stride + shuffled
