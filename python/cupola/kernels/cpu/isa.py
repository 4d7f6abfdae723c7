"""Instruction sets: the few vector operations that a processor has and TIR does not.

Every operation exists in several forms: as a processor's own instructions, and `PLAIN`, in portable TIR with the same
integers out. A new instruction set is one more value of `Isa`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from tvm import tirx

from cupola.kernels.cpu.emit import Expr, bits, cast, i32, lanes_of, let, select, shuffle, splat
from cupola.quantize.mxfp4 import CODE_HALVES, ZERO_HALVES

Sums: TypeAlias = Expr | None  # None: nothing yet
OFFSET = 128  # what makes an int8 a uint8


@dataclass(frozen=True)
class Isa:
    """Dot products of bytes, four neighbours at a time, over one vector.

    Weights are the left operand, one output to four bytes; activations the right one, int8, the same four in every
    lane. "Codes" are weights of 0 to 15, "integers" weights of the whole int8.

    Args:
        name: as in the compile configuration.
        lanes: outputs in a vector, which has four times as many bytes.
        registers: how many vectors there are.
        add_codes: (codes uint8, activations, sums) -> sums with the products added, of a type that is the processor's
            business. It may have 16 bits for every two products: enough for a group of codes and `activation.quantize`.
        widen: what `add_codes` gave -> int32 sums over four neighbours.
        as_factor: integers int8 -> what `add_integers` takes: the work that all rows share.
        add_integers: (factor, activations, int32 sums) -> sums with the products added.
        mxfp4_halves: codes uint8 of MXFP4 -> their numbers in `mxfp4.CODE_HALVES`.
        add_dot2: (int32x8 sums, int16x16 a, int16x16 b) -> sums + the products of two neighbours, added.
        add_pairs: (int32 sums, int16 a, int16 b) -> the same over a whole vector.
        excess: what `add_integers` adds for each activation too much, as a multiple of it.
        add_matrices: (int32 sums, two rows of 8 activations, weights of two outputs of 8 inputs) -> sums with the four
            products added, in each 16 bytes; None where there is no such instruction. `row_pairs.py` says more.
    """

    name: str
    lanes: int
    registers: int
    add_codes: Callable[[Expr, Expr, Sums], Expr]
    widen: Callable[[Expr], Expr]
    as_factor: Callable[[Expr], tuple[Expr, ...]]
    add_integers: Callable[[tuple[Expr, ...], Expr, Sums], Expr]
    mxfp4_halves: Callable[[Expr], Expr]
    add_dot2: Callable[[Expr, Expr, Expr], Expr]
    add_pairs: Callable[[Expr, Expr, Expr], Expr]
    excess: int = 0
    add_matrices: Callable[[Expr, Expr, Expr], Expr] | None = None

    @property
    def bytes(self) -> int:
        """The size of a vector."""
        return 4 * self.lanes


def _by_pairs(
    name: str,
    multiply: Callable[[Expr, Expr], Expr],
    widen: Callable[[Expr], Expr],
    with_sign: Callable[[Expr, Expr], Expr],
    dot2: Callable[[Expr, Expr], Expr],
    mxfp4_halves: Callable[[Expr], Expr],
) -> Isa:
    """An instruction set that multiplies uint8 by int8 into int16 sums of two products, and adds those by two.

    Args:
        name: as in `Isa`.
        multiply: (uint8x32, int8x32) -> int16x16 of the sums over two neighbours.
        widen: as in `Isa`.
        with_sign: (int8x32 a, int8x32 w) -> a with the sign of w applied; any value where w is 0.
        dot2: (int16x16, int16x16) -> int32x8 of the products of two neighbours, added.
        mxfp4_halves: as in `Isa`.
    """

    def add_integers(factor: tuple[Expr, ...], a: Expr, sums: Sums) -> Expr:
        weights, magnitudes = factor
        return _plus(widen(multiply(magnitudes, with_sign(a, weights))), sums)

    return Isa(
        name,
        lanes=8,
        registers=16,
        add_codes=lambda codes, a, sums: _plus(multiply(codes, a), sums),
        widen=widen,
        as_factor=lambda w: (w, bits(let(tirx.abs(w)), "uint8x32")),
        add_integers=add_integers,
        mxfp4_halves=mxfp4_halves,
        add_dot2=lambda sums, a, b: let(sums + dot2(a, b)),
        add_pairs=lambda sums, a, b: let(sums + dot2(a, b)),
    )


def _plus(step: Expr, sums: Sums) -> Expr:
    return step if sums is None else let(sums + step)


def _by_fours(name: str, lanes: int, registers: int) -> Isa:
    """AVX-512 VNNI, or AVX-VNNI: one instruction adds four products of uint8 and int8 to an int32."""
    instruction = f"llvm.x86.avx512.vpdpbusd.{lanes * 32}"

    def add(u: Expr, s: Expr, sums: Sums) -> Expr:
        return _intrinsic(f"int32x{lanes}", instruction, splat(i32(0), lanes) if sums is None else sums, u, s)

    def unsigned(w: Expr) -> tuple[Expr, ...]:
        return (let(bits(w, f"uint8x{4 * lanes}") ^ splat(tirx.IntImm("uint8", OFFSET), 4 * lanes)),)

    return Isa(
        name,
        lanes,
        registers,
        add_codes=add,
        widen=lambda sums: sums,
        as_factor=unsigned,
        add_integers=lambda factor, a, sums: add(factor[0], a, sums),
        mxfp4_halves=_halves_by("llvm.x86.avx512.pshuf.b.512" if lanes == 16 else "llvm.x86.avx2.pshuf.b"),
        add_dot2=lambda sums, a, b: _intrinsic("int32x8", "llvm.x86.avx512.vpdpwssd.256", sums, a, b),
        add_pairs=lambda sums, a, b: _intrinsic(f"int32x{lanes}", f"llvm.x86.avx512.vpdpwssd.{lanes * 32}", sums, a, b),
        excess=OFFSET,
    )


def _plain_multiply(u: Expr, s: Expr) -> Expr:
    return _add_neighbours(let(cast(u, "int16x32") * cast(s, "int16x32")))


def _plain_dot2(a: Expr, b: Expr) -> Expr:
    return _add_neighbours(let(cast(a, "int32x16") * cast(b, "int32x16")))


def _plain_with_sign(a: Expr, w: Expr) -> Expr:
    zero = splat(tirx.IntImm("int8", 0), 32)
    return select(w < zero, let(zero - a), a)


def _add_neighbours(v: Expr) -> Expr:
    lanes = lanes_of(v)
    return let(shuffle(v, range(0, lanes, 2)) + shuffle(v, range(1, lanes, 2)))


def _intrinsic(dtype: str, name: str, *args: Expr) -> Expr:
    return let(tirx.call_llvm_pure_intrin(dtype, name, *args))


def _halves_table(lanes: int) -> Expr:
    """The numbers of the sixteen codes as bytes, over and over."""
    values = [tirx.IntImm("uint8", CODE_HALVES[lane % 16]) for lane in range(lanes)]
    return let(tirx.Shuffle(values, [i32(lane) for lane in range(lanes)]))


def _halves_by(instruction: str) -> Callable[[Expr], Expr]:
    """By an instruction that chooses among the 16 bytes of each part of its first operand."""

    def halves(codes: Expr) -> Expr:
        return _intrinsic(f"uint8x{lanes_of(codes)}", instruction, _halves_table(lanes_of(codes)), codes)

    return halves


def _plain_halves(codes: Expr) -> Expr:
    """By arithmetic: m + (m > 4) * (m - 4) + (m > 6) * 2 of the lower three bits, then the sign, then 12."""
    lanes = lanes_of(codes)

    def all_lanes(value: int) -> Expr:
        return splat(tirx.IntImm("uint8", value), lanes)

    m = let(codes & all_lanes(7))
    twice = let(tirx.max(m, all_lanes(6)) << all_lanes(1))
    size = let(let(let(m + tirx.max(m, all_lanes(4))) + twice) - all_lanes(16))
    sign = let(all_lanes(0) - let(codes >> all_lanes(3)))  # of the negative ones, all bits
    return let(let(let(size ^ sign) - sign) + all_lanes(ZERO_HALVES))


PLAIN = _by_pairs(
    "plain",
    _plain_multiply,
    lambda v: _add_neighbours(cast(v, "int32x16")),
    _plain_with_sign,
    _plain_dot2,
    _plain_halves,
)

AVX2 = _by_pairs(
    "avx2",
    multiply=lambda u, s: _intrinsic("int16x16", "llvm.x86.avx2.pmadd.ub.sw", u, s),
    widen=lambda v: _intrinsic("int32x8", "llvm.x86.avx2.pmadd.wd", v, splat(tirx.IntImm("int16", 1), 16)),
    with_sign=lambda a, w: _intrinsic("int8x32", "llvm.x86.avx2.psign.b", a, w),
    dot2=lambda a, b: _intrinsic("int32x8", "llvm.x86.avx2.pmadd.wd", a, b),
    mxfp4_halves=_halves_by("llvm.x86.avx2.pshuf.b"),
)

VNNI = _by_fours("vnni", lanes=8, registers=16)
AVX512 = _by_fours("avx512", lanes=16, registers=32)


def _halves(instruction: str, sums: Expr, left: Expr, right: Expr) -> Expr:
    """An instruction for 16 bytes on both halves of a vector of 32, which takes two registers there."""
    parts = [
        _intrinsic(
            "int32x4",
            instruction,
            *(shuffle(v, range(at * lanes_of(v) // 2, (at + 1) * lanes_of(v) // 2)) for v in (sums, left, right)),
        )
        for at in range(2)
    ]
    return let(tirx.Shuffle(parts, list(range(8))))


def _neon_halves(codes: Expr) -> Expr:
    table, half = _halves_table(16), lanes_of(codes) // 2
    parts = [
        _intrinsic("uint8x16", "llvm.aarch64.neon.tbl1.v16i8", table, shuffle(codes, range(at * half, (at + 1) * half)))
        for at in range(2)
    ]
    return let(tirx.Shuffle(parts, list(range(2 * half))))


def _dotprod(name: str, add_matrices: Callable[[Expr, Expr, Expr], Expr] | None = None) -> Isa:
    """64-bit Arm: one instruction adds four products of int8 to an int32. It has 32 registers of 16 bytes, which are
    used as 16 of 32: in its vectors and in its tiles it is like AVX2, and its weights lie in the same order."""

    def add(w: Expr, a: Expr, sums: Sums) -> Expr:
        return _halves("llvm.aarch64.neon.sdot", splat(i32(0), 8) if sums is None else sums, w, a)

    return replace(
        PLAIN,
        name=name,
        add_codes=lambda codes, a, sums: add(bits(codes, "int8x32"), a, sums),
        widen=lambda sums: sums,
        as_factor=lambda w: (w,),
        mxfp4_halves=_neon_halves,
        add_integers=lambda factor, a, sums: add(factor[0], a, sums),
        add_matrices=add_matrices,
    )


DOTPROD = _dotprod("dotprod")
I8MM = _dotprod("i8mm", lambda sums, rows, weights: _halves("llvm.aarch64.neon.smmla", sums, rows, weights))

BY_NAME = {isa.name: isa for isa in (PLAIN, AVX2, VNNI, AVX512, DOTPROD, I8MM)}


def dot4_broadcast(quad: Expr, lanes: int) -> Expr:
    """Four neighbouring int8 activations (as one int32) in every lane of a vector."""
    return bits(splat(quad, lanes), f"int8x{4 * lanes}")
