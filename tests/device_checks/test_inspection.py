"""The checks themselves find what is wrong: a check that cannot fail proves nothing."""

from __future__ import annotations

import struct

import pytest

from device_checks import amd, shaders

needs_clang = pytest.mark.skipif(shaders.missing() is not None, reason="clang-19 is not installed")
METAL = "#include <metal_stdlib>\nusing namespace metal;\nkernel void k(device float* x [[ buffer(0) ]]) { x[0] = %s; }"


def table(name: str, *types: tuple[int, int, int]) -> bytes:
    key = struct.pack("<Q", len(name)) + name.encode()
    return b"before" + key + key + struct.pack("<Q", len(types)) + b"".join(struct.pack("<BBH", *t) for t in types)


def test_arguments_are_packed_at_multiples_of_their_sizes() -> None:
    library = table("sum", (3, 64, 1), (0, 32, 1), (3, 64, 1), (2, 16, 1), (0, 32, 1))
    assert amd.launched_arguments(library, "sum") == [(0, 8), (8, 4), (16, 8), (24, 2), (28, 4)]
    with pytest.raises(ValueError, match="lacks other"):
        amd.launched_arguments(library, "other")


def test_a_library_without_a_code_object_is_refused() -> None:
    with pytest.raises(ValueError, match="no code object"):
        amd.read_code_object(b"\x7fELF" + bytes(100))


def test_sources_are_found_in_a_library() -> None:
    metal = METAL % "1"
    assert shaders.metal_sources(b"\0\1" + metal.encode() + b"\0\xff" + metal.encode() + b"\x05") == [metal, metal]
    opencl = "// Function: k\n__kernel void k(__global float* x) { x[0] = 1; }"
    assert shaders.opencl_sources(b"\0" + opencl.encode() + b"\0") == [opencl]


@needs_clang
@pytest.mark.parametrize(
    ("value", "sound"), [("exp(2.0f)", True), ("expo(2.0f)", False), ("float4(1).q", False), (")", False)]
)
def test_wrong_metal_is_found(value: str, sound: bool) -> None:
    assert (shaders.metal_errors(METAL % value) == "") == sound


@needs_clang
@pytest.mark.parametrize("sound", [True, False])
def test_wrong_opencl_is_found(sound: bool) -> None:
    body = "__local float s[4];" if sound else "{ __local float s[4]; }"
    assert (shaders.opencl_errors(f"__kernel void k(__global float* x) {{ {body} }}") == "") == sound
