"""Lanes that go different ways and meet again, what they tell each other, matrices, copies, functions, atomics."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from ptx.interpreter import Program, PtxError
from ptx.snippets import apply, kernel

pytestmark = pytest.mark.timeout(600)  # the first test compiles the interpreter
LANES = np.arange(32)
WORDS = np.random.default_rng(1).integers(0, 2**32, 32, np.uint32)
STORE = "add.s64 %rd1, %rd20, %rd39; st.global.u32 [%rd1], %r1;"


def run(body: str, *, block: int = 32, grid: int = 1, seed: int = 0, shared: int = 0, outside: str = "") -> np.ndarray:
    """A word of every thread of a block: %r1, stored where its number says."""
    out = np.full(block, 0xAAAAAAAA, np.uint32)
    program = Program(kernel(f"{body}\n{STORE}", 1, shared=shared, outside=outside))
    program.launch("k", [out], block=(block,), grid=(grid,), seed=seed)
    return out


def test_lanes_meet_behind_branches_and_loops() -> None:
    """Each lane goes round as often as its number says; behind the loop all of them exchange."""
    found = run(
        """
        mov.u32 %r1, 0; mov.u32 %r2, 0;
        $L: setp.ge.u32 %p1, %r2, %r30; @%p1 bra $E;
        add.s32 %r1, %r1, %r2; add.s32 %r2, %r2, 1; bra.uni $L;
        $E: shfl.sync.bfly.b32 %r1, %r1, 31, 31, -1;
        """
    )
    np.testing.assert_array_equal(found, (LANES * (LANES - 1) // 2)[::-1])


def test_a_branch_that_lies_behind_is_waited_for() -> None:
    """The odd lanes are sent behind the exchange, and come back to it."""
    found = run(
        """
        and.b32 %r2, %r30, 1; setp.eq.s32 %p1, %r2, 1; mov.u32 %r1, %r30;
        @%p1 bra $ODD;
        $BACK: shfl.sync.idx.b32 %r1, %r1, 1, 31, -1; bra.uni $END;
        $ODD: add.s32 %r1, %r1, 100; bra.uni $BACK;
        $END: mov.u32 %r5, 0;
        """
    )
    np.testing.assert_array_equal(found, 101)


def test_each_half_of_a_warp_may_exchange_by_itself() -> None:
    found = run(
        """
        setp.lt.u32 %p1, %r30, 16; selp.b32 %r2, 0x0000ffff, 0xffff0000, %p1; mov.u32 %r1, %r30;
        redux.sync.add.u32 %r1, %r1, %r2;
        """
    )
    np.testing.assert_array_equal(found, [120] * 16 + [376] * 16)


@pytest.mark.parametrize(
    ("mode", "by", "limits", "source"),
    [
        ("bfly", 5, 31, LANES ^ 5),
        ("up", 3, 0, np.maximum(LANES - 3, LANES * (LANES < 3))),
        ("down", 2, 31, np.where(LANES < 30, LANES + 2, LANES)),
        ("idx", 9, 31, np.full(32, 9)),
        ("idx", 1, 31 | 0x1C << 8, LANES // 4 * 4 + 1),
        ("up", 1, 0x18 << 8, np.where(LANES % 8, LANES - 1, LANES)),
    ],
)
def test_shuffles(mode: str, by: int, limits: int, source: np.ndarray) -> None:
    text = f"shfl.sync.{mode}.b32 %r9|%p3, {{i0}}, {by}, {limits}, -1; mov.b32 {{o}}, %r9;"
    np.testing.assert_array_equal(apply(text, [WORDS], np.zeros_like(WORDS)), WORDS[source])


def test_votes_and_matches() -> None:
    odd = (WORDS & 1).astype(bool)
    ask = "and.b32 %r9, {i0}, 1; setp.eq.s32 %p1, %r9, 1;"
    ballot = apply(ask + "vote.sync.ballot.b32 {o}, %p1, -1;", [WORDS], np.zeros_like(WORDS))
    np.testing.assert_array_equal(ballot, (odd.astype(np.uint32) << LANES.astype(np.uint32)).sum())
    any_odd = apply(ask + "vote.sync.any.pred %p2, !%p1, -1; selp.b32 {o}, 1, 0, %p2;", [WORDS], np.zeros_like(WORDS))
    np.testing.assert_array_equal(any_odd, (~odd).any())
    few = WORDS % np.uint32(3)
    matches = apply("match.any.sync.b32 {o}, {i0}, -1;", [few], np.zeros_like(WORDS))
    np.testing.assert_array_equal(matches, ((few[:, None] == few) * 2**LANES).sum(axis=1))
    smallest = apply("redux.sync.min.s32 {o}, {i0}, -1;", [WORDS], np.zeros_like(WORDS))
    np.testing.assert_array_equal(smallest.view(np.int32), WORDS.view(np.int32).min())


def test_tables_of_branches() -> None:
    found = run(
        """
        and.b32 %r2, %r30, 3;
        $T: .branchtargets $A, $B, $C, $B;
        brx.idx %r2, $T;
        $A: mov.u32 %r1, 10; bra $E;
        $B: mov.u32 %r1, 20; bra $E;
        $C: mov.u32 %r1, 30;
        $E: mov.u32 %r3, 0;
        """
    )
    np.testing.assert_array_equal(found, np.array([10, 20, 30, 20])[LANES % 4])


def test_functions_of_the_module_are_called() -> None:
    function = """
    .func (.param .b32 result) triple(.param .b32 value)
    { .reg .b32 %r<4>; .reg .pred %p; ld.param.b32 %r1, [value]; mul.lo.s32 %r2, %r1, 3;
      setp.lt.s32 %p, %r2, 30; @%p bra $OUT; mov.u32 %r2, 99; $OUT: st.param.b32 [result], %r2; ret; }
    """
    call = """{ .param .b32 in; .param .b32 out; st.param.b32 [in], %r1;
        call.uni (out), triple, (in); ld.param.b32 %r1, [out]; }"""
    found = run(f"mov.u32 %r1, %r30;\n{call}\n{call}", outside=function)
    once = np.where(LANES < 10, 3 * LANES, 99)
    np.testing.assert_array_equal(found, np.where(once < 10, 3 * once, 99))


def test_variables_of_the_module_and_local_ones() -> None:
    outside = ".const .align 4 .b32 table[4] = {7, 8, 9, 10};\n.global .align 4 .u32 counter = 5;\n"
    found = run(
        """
        .local .align 8 .b8 frame[32];
        and.b32 %r2, %r30, 3; mul.wide.u32 %rd2, %r2, 4; mov.u64 %rd3, table; add.s64 %rd3, %rd3, %rd2;
        ld.const.u32 %r3, [%rd3]; mov.u64 %rd4, frame; add.s64 %rd5, %rd4, %rd2; st.local.u32 [%rd5], %r3;
        cvta.local.u64 %rd6, %rd5; ld.u32 %r1, [%rd6]; ld.global.u32 %r4, [counter]; add.s32 %r1, %r1, %r4;
        """,
        outside=outside,
    )
    np.testing.assert_array_equal(found, np.array([12, 13, 14, 15])[LANES % 4])


@pytest.mark.parametrize("seed", range(4))
def test_warps_meet_at_barriers_in_any_order(seed: int) -> None:
    """Every thread reads what its mirror image in the block wrote."""
    found = run(
        """
        mov.u32 %r2, memory; shl.b32 %r3, %r30, 2; add.s32 %r4, %r2, %r3; st.shared.u32 [%r4], %r30; bar.sync 0;
        sub.s32 %r5, 508, %r3; add.s32 %r5, %r5, %r2; ld.shared.u32 %r1, [%r5];
        """,
        block=128,
        seed=seed,
        shared=512,
    )
    np.testing.assert_array_equal(found, np.arange(128)[::-1])


def test_atomics_count_all_threads_of_a_grid() -> None:
    out = np.zeros(2, np.uint32)
    body = "atom.global.add.u32 %r1, [%rd20], 1; red.global.max.u32 [%rd20+4], %r30;"
    Program(kernel(body, 1)).launch("k", [out], block=(96,), grid=(50,))
    assert out.tolist() == [4800, 95]


def test_exchange_by_comparison() -> None:
    out = np.array([5], np.uint32)
    Program(kernel("atom.global.cas.b32 %r1, [%rd20], 5, 8;", 1)).launch("k", [out], block=(32,))
    assert out.tolist() == [8]


def fragments(matrix: np.ndarray, rows: int) -> list[np.ndarray]:
    """The words of A [16, K] (rows = 16) or of B, given as [8, K], by the manual's formulas: of lane 4 g + t, pairs of
    inputs 2 t + 8 i, of row g and then of row g + 8."""
    words, g, t = [], LANES // 4, LANES % 4
    for first in range(0, matrix.shape[1], 8):
        for row in range(0, rows, 8):
            pair = np.stack([matrix[g + row, first + 2 * t + i] for i in range(2)], axis=1)
            words.append(np.ascontiguousarray(pair).view(np.uint32)[:, 0])
    return words


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("inputs", [16, 8])
def test_products_of_matrices(dtype: Callable[..., np.generic], inputs: int) -> None:
    rng, g, t = np.random.default_rng(2), LANES // 4, LANES % 4
    a, b = (rng.standard_normal((rows, inputs)).astype(dtype) for rows in (16, 8))
    c = rng.standard_normal((16, 8)).astype(np.float32)
    places = [(g + 8 * (i // 2), 2 * t + i % 2) for i in range(4)]
    words = [*fragments(a, 16), *fragments(b, 8), *(c[place] for place in places)]
    short = "f16" if dtype is np.float16 else "bf16"
    count = len(words) - 4
    load = [f"add.s64 %rd1, %rd{20 + i}, %rd39; ld.global.b32 %r{1 + i}, [%rd1];" for i in range(count)]
    load += [f"add.s64 %rd1, %rd{20 + count + i}, %rd39; ld.global.f32 %f{1 + i}, [%rd1];" for i in range(4)]
    registers = [f"%r{1 + i}" for i in range(count)]
    cut = inputs // 4
    sums = "{%f1, %f2, %f3, %f4}"
    factors = f"{{{', '.join(registers[:cut])}}}, {{{', '.join(registers[cut:])}}}"
    product = f"mma.sync.aligned.m16n8k{inputs}.row.col.f32.{short}.{short}.f32 {sums}, {factors}, {sums};"
    store = [f"add.s64 %rd1, %rd{20 + count + i}, %rd39; st.global.f32 [%rd1], %f{1 + i};" for i in range(4)]
    arrays = [np.ascontiguousarray(word) for word in words]
    Program(kernel("\n".join([*load, product, *store]), len(words))).launch("k", arrays, block=(32,))
    expected = a.astype(np.float64) @ b.astype(np.float64).T + c
    for place, found in zip(places, arrays[-4:], strict=True):
        np.testing.assert_allclose(found, expected[place], atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_loaded_by_rows(transposed: bool) -> None:
    """Four matrices of 8 x 8, of which lane i has the address of row i; the first row lies last."""
    halves = np.arange(256, dtype=np.uint16)
    outs = [np.zeros(32, np.uint32) for _ in range(4)]
    body = f"""
        mov.u32 %r2, memory; shl.b32 %r3, %r30, 4; mul.wide.u32 %rd2, %r30, 16; add.s64 %rd3, %rd20, %rd2;
        xor.b32 %r3, %r3, 496; add.s32 %r4, %r2, %r3; ld.global.v4.b32 {{%r5, %r6, %r7, %r8}}, [%rd3];
        st.shared.v4.b32 [%r4], {{%r5, %r6, %r7, %r8}}; bar.warp.sync -1;
        ldmatrix.sync.aligned.m8n8.x4{".trans" * transposed}.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r4];
        """
    body += "".join(f"add.s64 %rd5, %rd{21 + i}, %rd39; st.global.u32 [%rd5], %r{10 + i};\n" for i in range(4))
    Program(kernel(body, 5, shared=512)).launch("k", [halves, *outs], block=(32,))
    matrices = halves.reshape(4, 8, 8)
    for matrix, found in zip(matrices.transpose(0, 2, 1) if transposed else matrices, outs, strict=True):
        np.testing.assert_array_equal(found.view(np.uint16).reshape(32, 2), matrix.reshape(32, 2))


def copied(wait: str, sizes: str = "16") -> np.ndarray:
    """Two groups of copies of 16 bytes a lane, and what lies at both places after a wait."""
    source, out = np.arange(256, dtype=np.uint32), np.zeros(256, np.uint32)
    body = f"""
        mov.u32 %r2, memory; shl.b32 %r3, %r30, 4; add.s32 %r4, %r2, %r3; mul.wide.u32 %rd2, %r30, 16;
        add.s64 %rd3, %rd20, %rd2; cp.async.cg.shared.global [%r4], [%rd3], {sizes}; cp.async.commit_group;
        cp.async.cg.shared.global [%r4+512], [%rd3+512], 16; cp.async.commit_group; {wait}
        ld.shared.v4.b32 {{%r5, %r6, %r7, %r8}}, [%r4]; ld.shared.v4.b32 {{%r9, %r10, %r11, %r12}}, [%r4+512];
        add.s64 %rd4, %rd21, %rd2; st.global.v4.b32 [%rd4], {{%r5, %r6, %r7, %r8}};
        st.global.v4.b32 [%rd4+512], {{%r9, %r10, %r11, %r12}};
        """
    Program(kernel(body, 2, shared=1024)).launch("k", [source, out], block=(32,))
    return out


def test_copies_come_when_they_are_waited_for_and_no_sooner() -> None:
    source, poison = np.arange(256, dtype=np.uint32), np.full(128, 0xFFFFFFFF, np.uint32)
    np.testing.assert_array_equal(copied(""), np.tile(poison, 2))
    np.testing.assert_array_equal(copied("cp.async.wait_group 2;"), np.tile(poison, 2))
    np.testing.assert_array_equal(copied("cp.async.wait_group 1;"), np.concatenate([source[:128], poison]))
    np.testing.assert_array_equal(copied("cp.async.wait_group 0;"), source)
    np.testing.assert_array_equal(copied("cp.async.wait_all;"), source)


def test_zeros_follow_what_a_copy_does_not_read() -> None:
    found = copied("cp.async.wait_all;", "16, 8")[:128].reshape(32, 4)
    np.testing.assert_array_equal(found[:, :2], np.arange(128).reshape(32, 4)[:, :2])
    np.testing.assert_array_equal(found[:, 2:], 0)


def test_a_block_has_several_dimensions() -> None:
    out = np.zeros(24, np.uint32)
    body = """
        mov.u32 %r1, %tid.y; mov.u32 %r2, %ntid.x; mad.lo.s32 %r3, %r1, %r2, %r30; mov.u32 %r4, %ctaid.x;
        mov.u32 %r5, %ntid.y; mul.lo.s32 %r6, %r5, %r2; mad.lo.s32 %r7, %r4, %r6, %r3;
        mul.wide.u32 %rd1, %r7, 4; add.s64 %rd2, %rd20, %rd1; st.global.u32 [%rd2], %r7;
        """
    counts = Program(kernel(body, 1)).launch("k", [out], block=(3, 4), grid=(2,))
    np.testing.assert_array_equal(out, np.arange(24))
    assert counts.threads == 24 * counts.warps // 2


def test_arguments_must_be_those_of_the_kernel() -> None:
    with pytest.raises(PtxError, match="parameters of"):
        Program(kernel("", 1)).launch("k", [np.int32(1)], block=(32,))
    with pytest.raises(PtxError, match="there is no kernel other"):
        Program(kernel("", 1)).launch("other", [], block=(32,))
