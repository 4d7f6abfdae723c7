"""Instruction sets: the few vector operations that a processor has and TIR does not.

Every operation exists twice: as the processor's own instruction, and `PLAIN`, in portable TIR with the same integers
out. A new instruction set is one more value of `Isa`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.emit import Expr, bits, cast, i32, let, select, shuffle, splat

EVEN = range(0, 32, 2)
ODD = range(1, 32, 2)


@dataclass(frozen=True)
class Isa:
    """Dot-product steps over 32 bytes.

    Args:
        name: as in the compile configuration.
        mul_pairs: (uint8x32 u, int8x32 s) -> partial sums of u[i] * s[i], of a type that is the processor's business.
            They may be added to one another as long as no u[2i]*s[2i] + u[2i+1]*s[2i+1], so added, leaves 16 bits.
        add_pairs: partial sums -> int32x8 of the sums over four neighbours.
        negate_where: (int8x32 a, int8x32 w) -> a with the sign of w applied; any value where w is 0.
        add_dot2: (int32x8 sum, int16x16 a, int16x16 b) -> sum + the products of two neighbours, added.
        registers: vector registers.
    """

    name: str
    mul_pairs: Callable[[Expr, Expr], Expr]
    add_pairs: Callable[[Expr], Expr]
    negate_where: Callable[[Expr, Expr], Expr]
    add_dot2: Callable[[Expr, Expr, Expr], Expr]
    registers: int


def _plain_mul_pairs(u: Expr, s: Expr) -> Expr:
    product = let(cast(u, "int16x32") * cast(s, "int16x32"))
    return let(shuffle(product, EVEN) + shuffle(product, ODD))


def _plain_add_pairs(v: Expr) -> Expr:
    wide = cast(v, "int32x16")
    return let(shuffle(wide, range(0, 16, 2)) + shuffle(wide, range(1, 16, 2)))


def _plain_negate_where(a: Expr, w: Expr) -> Expr:
    zero = splat(tirx.IntImm("int8", 0), 32)
    return select(w < zero, let(zero - a), a)


def _plain_add_dot2(total: Expr, a: Expr, b: Expr) -> Expr:
    product = let(cast(a, "int32x16") * cast(b, "int32x16"))
    return let(total + let(shuffle(product, range(0, 16, 2)) + shuffle(product, range(1, 16, 2))))


def _intrinsic(dtype: str, name: str, *args: Expr) -> Expr:
    return let(tirx.call_llvm_pure_intrin(dtype, name, *args))


PLAIN = Isa("plain", _plain_mul_pairs, _plain_add_pairs, _plain_negate_where, _plain_add_dot2, registers=16)

AVX2 = Isa(
    "avx2",
    mul_pairs=lambda u, s: _intrinsic("int16x16", "llvm.x86.avx2.pmadd.ub.sw", u, s),
    add_pairs=lambda v: _intrinsic("int32x8", "llvm.x86.avx2.pmadd.wd", v, splat(tirx.IntImm("int16", 1), 16)),
    negate_where=lambda a, w: _intrinsic("int8x32", "llvm.x86.avx2.psign.b", a, w),
    add_dot2=lambda total, a, b: let(total + _intrinsic("int32x8", "llvm.x86.avx2.pmadd.wd", a, b)),
    registers=16,
)

# AVX-512 VNNI, or the same instruction as AVX-VNNI has it: four products are added at once, without 16-bit sums.
VNNI = Isa(
    "vnni",
    mul_pairs=lambda u, s: _intrinsic("int32x8", "llvm.x86.avx512.vpdpbusd.256", splat(i32(0)), u, s),
    add_pairs=lambda v: v,
    negate_where=AVX2.negate_where,
    add_dot2=lambda total, a, b: _intrinsic("int32x8", "llvm.x86.avx512.vpdpwssd.256", total, a, b),
    registers=32,
)

BY_NAME = {isa.name: isa for isa in (PLAIN, AVX2, VNNI)}


def dot4_broadcast(quad: Expr) -> Expr:
    """Four neighbouring int8 activations (as one int32) repeated over a vector: int8x32."""
    return bits(splat(quad), "int8x32")
