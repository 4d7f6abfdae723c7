"""What a kernel may not do, and hardware would punish by chance: each is an error that names the instruction."""

from __future__ import annotations

import numpy as np
import pytest

from ptx.interpreter import Program, PtxError
from ptx.snippets import kernel

pytestmark = pytest.mark.timeout(600)  # the first test compiles the interpreter
OWN = "mov.u32 %r2, memory; shl.b32 %r3, %r30, 2; add.s32 %r4, %r2, %r3;"


def launch(body: str, *, block: int = 64, shared: int = 512, seed: int = 0) -> np.ndarray:
    out = np.zeros(block, np.uint32)
    Program(kernel(body, 1, shared=shared)).launch("k", [out], block=(block,), seed=seed)
    return out


@pytest.mark.parametrize("seed", range(4))
def test_a_race_between_warps(seed: int) -> None:
    """Each thread reads what the thread 32 further on writes; whichever warp comes first."""
    body = f"{OWN} st.shared.u32 [%r4], %r30; xor.b32 %r5, %r3, 128; add.s32 %r5, %r5, %r2; ld.shared.u32 %r6, [%r5];"
    with pytest.raises(PtxError, match=r"k, line \d+, `(ld|st)\.shared\.u32 .*race in shared memory"):
        launch(body, seed=seed)
    launch(body.replace("xor", "bar.sync 0; xor"), seed=seed)


def test_a_race_that_only_overwrites() -> None:
    with pytest.raises(PtxError, match="writes what was written by"):
        launch("mov.u32 %r2, memory; st.shared.u32 [%r2], %r30;")


def test_a_read_that_a_later_write_overtakes() -> None:
    """As a pipeline that overwrites a stage before all have read it."""
    read = f"{OWN} st.shared.u32 [%r4], 1; bar.sync 0; ld.shared.u32 %r5, [%r2];"
    body = read + "setp.eq.s32 %p1, %r30, 40; {} @%p1 st.shared.u32 [%r2], 2;"
    with pytest.raises(PtxError, match="writes what was read by"):
        launch(body.format(""))
    launch(body.format("bar.sync 0;"))


def test_an_asynchronous_copy_over_what_another_warp_reads() -> None:
    body = f"""{OWN} st.shared.u32 [%r4], 1; bar.sync 0; ld.shared.u32 %r5, [%r2];
        setp.eq.s32 %p1, %r30, 40; @%p1 cp.async.ca.shared.global [%r2], [%rd20], 4; cp.async.wait_all;"""
    with pytest.raises(PtxError, match=r"cp\.async.*writes what was read by"):
        launch(body)


def test_neighbouring_bytes_of_a_word_are_no_race() -> None:
    """The first lane of each warp has a byte."""
    launch(
        "mov.u32 %r2, memory; shr.u32 %r3, %r30, 5; add.s32 %r4, %r2, %r3; cvt.u16.u32 %h1, %r3;"
        "and.b32 %r5, %r30, 31; setp.eq.s32 %p1, %r5, 0; @%p1 st.shared.u8 [%r4], %h1;"
    )


def test_memory_and_registers_begin_as_poison() -> None:
    out = launch(
        "mov.u32 %r2, memory; ld.shared.u32 %r1, [%r2]; add.s64 %rd1, %rd20, %rd39; st.global.u32 [%rd1], %r1;"
    )
    assert np.isnan(out.view(np.float32)).all()
    out = launch("add.f32 %f3, %f1, %f2; add.s64 %rd1, %rd20, %rd39; st.global.f32 [%rd1], %f3;")
    assert np.isnan(out.view(np.float32)).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "mov.u32 %r2, memory; ld.shared.u32 %r1, [%r2+512];",
            "outside of shared memory: access of 4 bytes at 0x200, of 512",
        ),
        ("mov.u32 %r2, memory; ld.shared.u32 %r1, [%r2+-4];", "outside of shared memory"),
        ("mov.u32 %r2, memory; ld.shared.v2.u32 {%r1, %r3}, [%r2+4];", "misaligned access of 8 bytes"),
        ("ld.global.u32 %r1, [%rd20+256];", "outside of global memory: access of 4 bytes"),
        ("st.global.v4.u32 [%rd20+248], {%r1, %r1, %r1, %r1};", "misaligned access of 16 bytes"),
        ("mov.u64 %rd1, 16; ld.global.u32 %r1, [%rd1];", "outside of global memory"),
        (".local .align 4 .b8 frame[8]; mov.u64 %rd1, frame; ld.local.u32 %r1, [%rd1+8];", "outside of local memory"),
        ("cp.async.cg.shared.global [memory+512], [%rd20], 16;", "outside of shared memory"),
        ("cp.async.cg.shared.global [memory], [%rd20+4096], 16;", "outside of global memory"),
        ("cp.async.cg.shared.global [memory], [%rd20], 16, 20;", "a copy reads 20 of 16 bytes"),
        ("trap;", "the kernel ends by itself"),
    ],
)
def test_accesses(body: str, message: str) -> None:
    with pytest.raises(PtxError, match=rf"k, line \d+, `.*{message}"):
        launch(body)


def test_a_barrier_that_a_warp_does_not_reach() -> None:
    with pytest.raises(
        PtxError, match=r"32 threads wait at barrier 0, .* warp 0 waits at line \d+, `@!?%p1 bar.sync 0`"
    ):
        launch("setp.lt.u32 %p1, %r30, 32; @%p1 bar.sync 0;")


def test_a_barrier_that_lanes_do_not_reach() -> None:
    with pytest.raises(PtxError, match=r"bar.sync 0`: lanes 5, .* (wait for others|do not take part)"):
        launch("setp.gt.u32 %p1, %r30, 4; @%p1 bar.sync 0;")
    with pytest.raises(PtxError, match="they ended"):
        launch("setp.eq.s32 %p1, %r30, 7; @%p1 exit; bar.sync 0;")


def test_lanes_that_are_asked_for_and_do_not_come() -> None:
    with pytest.raises(PtxError, match=r"shfl.*lanes 0, 1, 2 (wait for others|are asked for)"):
        launch("setp.lt.u32 %p1, %r30, 3; @%p1 shfl.sync.bfly.b32 %r1, %r30, 1, 31, -1;", block=32)
    with pytest.raises(PtxError, match=r"lanes 16, .*they ended, or there are none"):
        launch("shfl.sync.bfly.b32 %r1, %r30, 1, 31, -1;", block=16)


def test_lanes_that_are_not_asked_for() -> None:
    with pytest.raises(PtxError, match="are not among those that are asked for"):
        launch("shfl.sync.bfly.b32 %r1, %r30, 1, 31, 1;", block=32)
    with pytest.raises(PtxError, match="lane 0 reads lane 1, which takes no part"):
        launch("setp.ne.s32 %p1, %r30, 1; @%p1 shfl.sync.bfly.b32 %r1, %r30, 1, 31, 0xfffffffd;", block=32)


def test_a_product_by_a_part_of_a_warp() -> None:
    sums = "{%f1, %f2, %f3, %f4}"
    product = f"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {sums}, {{%r1, %r2}}, {{%r3}}, {sums};"
    launch(product)
    with pytest.raises(PtxError, match=r"mma\.sync.*lanes 9, "):
        launch(f"setp.gt.u32 %p1, %r30, 8; @%p1 {product}", block=32)


def test_a_branch_behind_its_table() -> None:
    with pytest.raises(PtxError, match="branch 5 of a table of 1"):
        launch("mov.u32 %r1, 5;\n$T: .branchtargets $A;\nbrx.idx %r1, $T;\n$A: mov.u32 %r1, 0;")
