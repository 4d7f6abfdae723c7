"""What attention asks of the threads of a warp, beside products of tiles: moves of 16 bytes, sums over quads, 2^x.

On CUDA each is one instruction of PTX, in TVM's table of them; tests bring another `WarpUnit`, which takes them apart.
A quad is four neighbouring lanes: those that have one row of a tile's sums (`matrix_unit.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from tvm import tirx
from tvm.backend.cuda.op import cuda_any_sync
from tvm.backend.cuda.ptx import PTXNamespace
from tvm.tirx.script.builder import ir

from cupola.kernels.emit import Expr, Index, Span, as_index, cast, i32, let
from cupola.kernels.gpu.emit import INT32, Block, registers, u32
from cupola.kernels.gpu.matrix_unit import WARP, Instructions, of_cuda

CHUNK_BYTES = 16
CHUNK = 8  # 16-bit floats that are moved together
CHUNK_WORDS = 4


class Warp(Protocol):
    """The instructions, in one block of threads. Words are uint32 of two floats, and `at` counts them."""

    def multiply(self, a: Span, a_at: int, b: Span, b_at: int, c: Span, c_at: int) -> None:
        """As `Instructions.multiply`."""

    def pair(self, low: Expr, high: Expr) -> Expr:
        """As `Instructions.pair`."""

    def load(self, words: Span, at: int, memory: Span, line: Expr, *, transposed: bool = False) -> None:
        """As `Instructions.load`."""

    def fetch(self, source: Span, at: Expr, target: Span, places: Sequence[int]) -> None:
        """Neighbouring words (two or four, aligned) of global memory into these places of registers."""

    def pick(self, source: Span, at: Expr, target: Span, places: Sequence[int]) -> None:
        """The same from memory of the block."""

    def copy(self, source: Span, at: Expr, target: Span, to: Expr, size: Expr | None = None) -> None:
        """Begins to copy four words from global memory to memory of the block; zeros follow the first `size` bytes."""

    def arrived(self) -> None:
        """Waits for all that this thread began to copy."""

    def exp2(self, x: Expr) -> Expr:
        """2^x of x <= 0, to 2 units in the last place."""

    def quad_max(self, value: Expr) -> Expr:
        """The largest of the quad's four values, for all of them."""

    def quad_sum(self, value: Expr) -> Expr:
        """Their sum."""

    def any(self, condition: Expr) -> Expr:
        """Whether a condition holds for some lane of the warp, which keeps branches whole; where lanes go their own
        ways without harm, it may be the lane's own."""


class WarpUnit(Protocol):
    """A kind of device that has such warps."""

    def begin(self, block: Block) -> Warp:
        """Called once in a block, outside of branches and loops."""


@dataclass(frozen=True)
class CudaWarps:
    """Warps of NVIDIA's GPUs, from sm_80 on.

    Args:
        dtype: float16 or bfloat16.
    """

    dtype: str

    def begin(self, block: Block) -> Warp:
        return _CudaWarp(of_cuda(self.dtype).begin(block))


@dataclass(frozen=True)
class _CudaWarp:
    instructions: Instructions

    def multiply(self, a: Span, a_at: int, b: Span, b_at: int, c: Span, c_at: int) -> None:
        self.instructions.multiply(a, a_at, b, b_at, c, c_at)

    def pair(self, low: Expr, high: Expr) -> Expr:
        return self.instructions.pair(low, high)

    def load(self, words: Span, at: int, memory: Span, line: Expr, *, transposed: bool = False) -> None:
        self.instructions.load(words, at, memory, line, transposed=transposed)

    def fetch(self, source: Span, at: Expr, target: Span, places: Sequence[int]) -> None:
        _ptx(f"ld.global.nc.v{len(places)}.b32", *_places(target, places), _address(source, at))

    def pick(self, source: Span, at: Expr, target: Span, places: Sequence[int]) -> None:
        _ptx(f"ld.shared.v{len(places)}.b32", *_places(target, places), _address(source, at))

    def copy(self, source: Span, at: Expr, target: Span, to: Expr, size: Expr | None = None) -> None:
        sizes = (CHUNK_BYTES,) if size is None else (CHUNK_BYTES, cast(size, "uint32"))
        _ptx("cp.async.cg.shared.global", _address(target, to), _address(source, at), *sizes)

    def arrived(self) -> None:
        _ptx("cp.async.wait_all")

    def exp2(self, x: Expr) -> Expr:
        result = registers(1)
        _ptx("ex2.approx.ftz.f32", *_places(result, (0,)), x)
        return result.at(0)

    def quad_max(self, value: Expr) -> Expr:
        for distance in (1, 2):
            value = let(tirx.max(value, _exchanged(value, distance)))
        return value

    def quad_sum(self, value: Expr) -> Expr:
        for distance in (1, 2):
            value = let(value + _exchanged(value, distance))
        return value

    def any(self, condition: Expr) -> Expr:
        return let(cuda_any_sync(u32(0xFFFFFFFF), condition) != 0)


def words(span: Span) -> Span:
    """A tensor of 16-bit floats as words."""
    return span if str(span.buffer.dtype) == "uint32" else span.viewed("uint32")


def _ptx(instruction: str, *operands: Expr | int) -> None:
    ir.evaluate(_instructions()[instruction](*operands))


@cache
def _instructions() -> PTXNamespace:
    return PTXNamespace()


def _places(span: Span, places: Sequence[int]) -> list[Expr]:
    return [span.get(place) for place in places]


def _address(span: Span, at: Index) -> Expr:
    return ir.address_of(span.buffer[as_index(at, INT32)])


def _exchanged(value: Expr, distance: int) -> Expr:
    """The value of the lane whose number differs in this bit."""
    arguments = [u32(0xFFFFFFFF), value, i32(distance), i32(WARP), i32(WARP)]
    return let(tirx.call_intrin("float32", "tirx.tvm_warp_shuffle_xor", *arguments))
