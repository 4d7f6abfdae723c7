"""The interpreter's arithmetic against NumPy: integers, bits, floats of 16, 32 and 64 bits, conversions."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from ptx.interpreter import Program, PtxError
from ptx.snippets import apply, kernel

pytestmark = pytest.mark.timeout(600)  # the first test compiles the interpreter
COUNT = 1024
RNG = np.random.default_rng(0)
I32 = np.concatenate([RNG.integers(-(2**31), 2**31, COUNT - 8), [0, 1, -1, 2**31 - 1, -(2**31), 31, 32, 5]]).astype(
    np.int32
)
J32 = RNG.permutation(I32).astype(np.int32)
SMALL = RNG.integers(0, 40, COUNT).astype(np.uint32)
F32 = np.concatenate(
    [RNG.standard_normal(COUNT - 8) * 100, [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, 0.5]]
).astype(np.float32)
G32 = RNG.permutation(F32).astype(np.float32)
F16 = (RNG.standard_normal(COUNT) * 8).astype(np.float16)
G16, H16 = RNG.permutation(F16), RNG.permutation(F16)


def wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.int64)


INTEGERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add.s32": lambda a, b: wide(a) + b,
    "sub.s32": lambda a, b: wide(a) - b,
    "mul.lo.s32": lambda a, b: wide(a) * b,
    "mul.hi.s32": lambda a, b: (wide(a) * b) >> 32,
    "mul.hi.u32": lambda a, b: ((a.view(np.uint32).astype(np.uint64) * b.view(np.uint32)) >> np.uint64(32)).astype(
        np.int64
    ),
    "min.s32": np.minimum,
    "max.u32": lambda a, b: np.maximum(a.view(np.uint32), b.view(np.uint32)).view(np.int32),
    "and.b32": lambda a, b: a & b,
    "xor.b32": lambda a, b: a ^ b,
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str) -> None:
    found = apply(f"{name} {{o}}, {{i0}}, {{i1}};", [I32, J32], np.zeros_like(I32))
    np.testing.assert_array_equal(found, INTEGERS[name](I32, J32).astype(np.int32))


def test_division_and_shifts() -> None:
    by = np.where(J32 == 0, 7, J32 % 1000 + 1001).astype(np.int32)
    quotient = apply("div.s32 {o}, {i0}, {i1};", [I32, by], np.zeros_like(I32))
    np.testing.assert_array_equal(quotient, np.trunc(I32 / by.astype(np.float64)).astype(np.int32))
    rest = apply("rem.s32 {o}, {i0}, {i1};", [I32, by], np.zeros_like(I32))
    np.testing.assert_array_equal(rest, np.fmod(I32, by))
    far = np.minimum(SMALL, 63).astype(np.int64)
    left = apply("shl.b32 {o}, {i0}, {i1};", [I32, SMALL], np.zeros_like(I32))
    np.testing.assert_array_equal(left, (I32.astype(np.int64) << far).astype(np.int32) * (far < 32))
    right = apply("shr.s32 {o}, {i0}, {i1};", [I32, SMALL], np.zeros_like(I32))
    np.testing.assert_array_equal(right, (I32.astype(np.int64) >> far).astype(np.int32))


def test_wide_products_and_sums_of_64_bits() -> None:
    found = apply("mad.wide.s32 {o}, {i0}, {i1}, {i2};", [I32, J32, wide(J32)], np.zeros(COUNT, np.int64))
    np.testing.assert_array_equal(found, wide(I32) * J32 + J32)


def test_bits_are_picked_and_joined() -> None:
    def bytes_of(a: np.ndarray) -> np.ndarray:
        return a.view(np.uint8).reshape(COUNT, 4)

    found = apply("prmt.b32 {o}, {i0}, {i1}, 0x5410;", [I32, J32], np.zeros_like(I32))
    np.testing.assert_array_equal(bytes_of(found), np.hstack([bytes_of(I32)[:, :2], bytes_of(J32)[:, :2]]))
    found = apply("prmt.b32 {o}, {i0}, {i1}, 0xba98;", [I32, J32], np.zeros_like(I32))
    np.testing.assert_array_equal(bytes_of(found), np.where(bytes_of(I32) & 128, 255, 0))
    found = apply("lop3.b32 {o}, {i0}, {i1}, 0xff00, 0xea;", [I32, J32], np.zeros_like(I32))
    np.testing.assert_array_equal(found, (I32 & J32) | 0xFF00)
    found = apply("bfe.s32 {o}, {i0}, 5, 7;", [I32], np.zeros_like(I32))
    np.testing.assert_array_equal(found, ((I32 >> 5) & 127 ^ 64) - 64)
    found = apply("bfi.b32 {o}, {i0}, {i1}, 8, 12;", [I32, J32], np.zeros_like(I32))
    np.testing.assert_array_equal(found, (J32 & ~0xFFF00) | ((I32 & 0xFFF) << 8))
    found = apply("shf.l.wrap.b32 {o}, {i0}, {i1}, 9;", [I32, J32], np.zeros_like(I32))
    np.testing.assert_array_equal(found.view(np.uint32), (J32.view(np.uint32) << 9) | (I32.view(np.uint32) >> 23))
    found = apply("dp4a.s32.u32 {o}, {i0}, {i1}, 3;", [I32, J32], np.zeros_like(I32))
    dot = (bytes_of(I32).view(np.int8).astype(np.int32) * bytes_of(J32)).sum(axis=1) + 3
    np.testing.assert_array_equal(found, dot)
    found = apply("popc.b32 {o}, {i0};", [I32], np.zeros_like(I32))
    np.testing.assert_array_equal(found, np.unpackbits(bytes_of(I32), axis=1).sum(axis=1))


def test_floats_are_rounded_once() -> None:
    with np.errstate(all="ignore"):
        found = apply("fma.rn.f32 {o}, {i0}, {i1}, {i0};", [F32, G32], np.zeros_like(F32))
        exact = F32.astype(np.float64) * G32 + F32  # exact but for a second rounding, which these numbers do not meet
        np.testing.assert_array_equal(found, exact.astype(np.float32))
        found = apply("div.rn.f32 {o}, {i0}, {i1};", [F32, G32], np.zeros_like(F32))
        np.testing.assert_array_equal(found, F32 / G32)
    found = apply("min.f32 {o}, {i0}, {i1};", [F32, G32], np.zeros_like(F32))
    np.testing.assert_array_equal(found, np.fmin(F32, G32))


@pytest.mark.parametrize(("mode", "side"), [("rm", -np.inf), ("rp", np.inf), ("rz", 0.0)])
def test_floats_are_rounded_to_a_side(mode: str, side: float) -> None:
    a, b = (RNG.standard_normal(COUNT).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) * b  # has 48 bits
    nearest = exact.astype(np.float32)
    wrong = {"rm": nearest > exact, "rp": nearest < exact, "rz": np.abs(nearest) > np.abs(exact)}[mode]
    expected = np.where(wrong, np.nextafter(nearest, np.float32(side)), nearest)
    found = apply(f"mul.{mode}.f32 {{o}}, {{i0}}, {{i1}};", [a, b], np.zeros_like(a))
    np.testing.assert_array_equal(found, expected)
    zeros = np.full_like(a, -0.0)
    found = apply(f"fma.{mode}.f32 {{o}}, {{i0}}, {{i1}}, {{i2}};", [a, b, zeros], np.zeros_like(a))
    np.testing.assert_array_equal(found, expected)


def test_small_numbers_are_flushed_where_that_is_asked_for() -> None:
    tiny = np.float32([1e-40, -1e-40, 1e-30])
    np.testing.assert_array_equal(
        apply("add.ftz.f32 {o}, {i0}, {i0};", [tiny], np.zeros_like(tiny)), [0, 0, np.float32(2e-30)]
    )
    np.testing.assert_array_equal(apply("add.f32 {o}, {i0}, {i0};", [tiny], np.zeros_like(tiny)), tiny + tiny)


@pytest.mark.parametrize(
    ("name", "function", "low"),
    [
        ("ex2.approx.f32", np.exp2, -20),
        ("lg2.approx.f32", np.log2, 0.01),
        ("rsqrt.approx.f32", lambda x: 1 / np.sqrt(x), 0.01),
        ("sin.approx.f32", np.sin, -3),
        ("cos.approx.f32", np.cos, -3),
        ("tanh.approx.f32", np.tanh, -3),
        ("sqrt.rn.f32", np.sqrt, 0),
        ("rcp.rn.f32", lambda x: 1 / x, 0.01),
    ],
)
def test_functions(name: str, function: Callable[[np.ndarray], np.ndarray], low: float) -> None:
    x = RNG.uniform(low, 20 if low >= 0 else -low, COUNT).astype(np.float32)
    np.testing.assert_allclose(
        apply(f"{name} {{o}}, {{i0}};", [x], np.zeros_like(x)), function(x.astype(np.float64)), rtol=3e-7, atol=1e-7
    )


def test_float16_is_rounded_once() -> None:
    found = apply("fma.rn.f16 {o}, {i0}, {i1}, {i2};", [F16, G16, H16], np.zeros_like(F16))
    exact = F16.astype(np.float64) * G16 + H16
    np.testing.assert_array_equal(found, exact.astype(np.float16))
    pairs = [a.view(np.uint32) for a in (F16, G16)]
    found = apply("add.rn.f16x2 {o}, {i0}, {i1};", pairs, np.zeros(COUNT // 2, np.uint32))
    np.testing.assert_array_equal(found.view(np.float16), F16 + G16)
    found = apply("fma.rn.relu.f16 {o}, {i0}, {i1}, {i2};", [F16, G16, H16], np.zeros_like(F16))
    np.testing.assert_array_equal(found, np.maximum(exact.astype(np.float16), 0))


def test_bfloat16_is_rounded_once() -> None:
    """1 + 2^-8 is halfway; a float64 would lose what decides."""
    a = np.array([1 + 2**-7, 1.5, 2.0], ml_dtypes.bfloat16)
    b = np.array([1 + 2**-1, 1 + 2**-7, 1.0], ml_dtypes.bfloat16)
    c = np.array([2.0**-120, -(2.0**-120), 2.0**-130], ml_dtypes.bfloat16)
    arrays = [x.view(np.uint16) for x in (a, b, c)]
    found = apply("fma.rn.bf16 {o}, {i0}, {i1}, {i2};", arrays, np.zeros(3, np.uint16)).view(ml_dtypes.bfloat16)
    # 1.51171875 lies halfway between 1.5078125 and 1.515625.
    assert found.astype(np.float64).tolist() == [1.515625, 1.5078125, 2.0]


def test_integers_become_floats_and_back() -> None:
    np.testing.assert_array_equal(apply("cvt.rn.f32.s32 {o}, {i0};", [I32], np.zeros_like(F32)), I32.astype(np.float32))
    np.testing.assert_array_equal(
        apply("cvt.rn.f32.u32 {o}, {i0};", [I32], np.zeros_like(F32)), I32.view(np.uint32).astype(np.float32)
    )
    for name, function in (("rni", np.rint), ("rzi", np.trunc), ("rmi", np.floor), ("rpi", np.ceil)):
        found = apply(f"cvt.{name}.s32.f32 {{o}}, {{i0}};", [F32], np.zeros_like(I32))
        expected = np.clip(
            np.nan_to_num(function(F32.astype(np.float64)), nan=0.0, posinf=2.0**40, neginf=-(2.0**40)),
            -(2**31),
            2**31 - 1,
        )
        np.testing.assert_array_equal(found, expected.astype(np.int64))
    found = apply("cvt.sat.f32.f32 {o}, {i0};", [F32], np.zeros_like(F32))
    np.testing.assert_array_equal(found, np.nan_to_num(np.clip(F32, 0, 1)))


def test_registers_may_be_wider_than_what_is_converted() -> None:
    found = apply("cvt.u16.u32 %h9, {i0}; cvt.s32.s8 {o}, %h9;", [I32], np.zeros_like(I32))
    np.testing.assert_array_equal(found, I32.astype(np.int8))
    words = I32.view(np.int16)[:COUNT].copy()
    body = (
        "add.s64 %rd1, %rd20, %rd39; ld.global.s8 %r1, [%rd1+1]; add.s64 %rd2, %rd21, %rd39; st.global.u32 [%rd2], %r1;"
    )
    out = np.zeros(32, np.int32)
    Program(kernel(body, 2)).launch("k", [words, out], block=(32,))
    np.testing.assert_array_equal(out, words.view(np.int8)[1::4][:32])


def test_floats_of_16_bits_and_of_32() -> None:
    scaled = np.clip(F32 * np.float32(0.01), -9, 9)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            apply("cvt.rn.f16.f32 {o}, {i0};", [F32], np.zeros_like(F16)), F32.astype(np.float16)
        )
    np.testing.assert_array_equal(apply("cvt.f32.f16 {o}, {i0};", [F16], np.zeros_like(F32)), F16.astype(np.float32))
    found = (
        apply("cvt.rn.bf16x2.f32 {o}, {i0}, {i1};", [F32, scaled], np.zeros_like(I32))
        .view(ml_dtypes.bfloat16)
        .reshape(COUNT, 2)
    )
    np.testing.assert_array_equal(found[:, 1].astype(np.float32), F32.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(found[:, 0].astype(np.float32), scaled.astype(ml_dtypes.bfloat16).astype(np.float32))
    found = (
        apply("cvt.rn.f16x2.f32 {o}, {i0}, {i1};", [scaled, scaled], np.zeros_like(I32))
        .view(np.float16)
        .reshape(COUNT, 2)
    )
    np.testing.assert_array_equal(found[:, 1], scaled.astype(np.float16))


def test_comparisons_and_choices() -> None:
    text = "setp.{} %p1, {{i0}}, {{i1}}; selp.b32 {{o}}, 1, 0, %p1;"
    for name, expected in (
        ("lt.f32", F32 < G32),
        ("geu.f32", ~(F32 < G32)),
        ("neu.f32", F32 != G32),
        ("ne.f32", (F32 != G32) & ~np.isnan(F32) & ~np.isnan(G32)),
        ("nan.f32", np.isnan(F32) | np.isnan(G32)),
    ):
        np.testing.assert_array_equal(apply(text.format(name), [F32, G32], np.zeros_like(I32)), expected)
    np.testing.assert_array_equal(
        apply(text.format("lt.u32"), [I32, J32], np.zeros_like(I32)), I32.view(np.uint32) < J32.view(np.uint32)
    )
    joined = "setp.lt.s32 %p1, {i0}, 0; setp.gt.or.s32 %p2, {i1}, 100, !%p1; selp.b32 {o}, 1, 0, %p2;"
    np.testing.assert_array_equal(apply(joined, [I32, J32], np.zeros_like(I32)), (J32 > 100) | ~(I32 < 0))


@pytest.mark.parametrize(
    "text", ["frobnicate.f32 %f1, %f2;", "add.f33 %f1, %f2, %f3;", "ld.global.odd.b32 %r1, [%rd20];"]
)
def test_what_is_not_known_is_refused_by_name(text: str) -> None:
    with pytest.raises(PtxError, match=text.split()[0]):
        Program(kernel(text, 1))


def test_operands_must_fit() -> None:
    with pytest.raises(PtxError, match=r"line 11: .*%rd1 has 8 bytes, and not 4"):
        Program(kernel("add.s32 %r1, %rd1, %r2;", 1))
    with pytest.raises(PtxError, match="3 operands are expected"):
        Program(kernel("add.s32 %r1, %r2;", 1))
