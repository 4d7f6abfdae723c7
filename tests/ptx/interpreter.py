"""The interpreter of PTX for NumPy: kernels read and write the arrays that they are given.

    program = Program(text)
    program.launch("kernel", [x, y, np.int32(7)], block=(128,), grid=(4,))

An argument is an array (its address is passed, and only arrays may be touched) or a NumPy scalar (its bytes are).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ptx.build import library

MOST_PARAMETERS = 64
Argument = np.ndarray | np.generic


class PtxError(Exception):
    """The text was refused, or a kernel did what it may not; names line and instruction."""


class _Launch(ctypes.Structure):
    _fields_ = [
        ("entry", ctypes.c_char_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("dynamic_shared", ctypes.c_size_t),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("ranges", ctypes.POINTER(ctypes.c_uint64)),
        ("num_ranges", ctypes.c_size_t),
        ("seed", ctypes.c_uint),
        ("threads", ctypes.c_uint),
        ("races", ctypes.c_uint),
    ]


@dataclass(frozen=True, slots=True)
class Counts:
    """Executed instructions, of warps and of threads."""

    warps: int
    threads: int


@cache
def _library() -> ctypes.CDLL:
    found = ctypes.CDLL(str(library()))
    found.ptx_last_error.restype = ctypes.c_char_p
    found.ptx_parse.restype = ctypes.c_void_p
    found.ptx_parse.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    found.ptx_free.argtypes = [ctypes.c_void_p]
    sizes = ctypes.POINTER(ctypes.c_size_t)
    found.ptx_parameters.argtypes = [ctypes.c_void_p, ctypes.c_char_p, sizes, ctypes.c_int]
    counts = ctypes.POINTER(ctypes.c_uint64)
    found.ptx_execute.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Launch), counts]
    return found


def _error() -> PtxError:
    return PtxError(_library().ptx_last_error().decode())


class Program:
    """A module of PTX."""

    def __init__(self, text: str) -> None:
        """PtxError: it is no PTX, or has an instruction that is not known."""
        code = text.encode()
        self._handle = _library().ptx_parse(code, len(code))
        if not self._handle:
            raise _error()

    def __del__(self) -> None:
        _library().ptx_free(self._handle)

    def parameters(self, entry: str) -> list[int]:
        """The bytes of each parameter of a kernel."""
        sizes = (ctypes.c_size_t * MOST_PARAMETERS)()
        count = _library().ptx_parameters(self._handle, entry.encode(), sizes, MOST_PARAMETERS)
        if count < 0:
            raise _error()
        return list(sizes[:count])

    def launch(
        self,
        entry: str,
        arguments: Sequence[Argument],
        *,
        block: Sequence[int],
        grid: Sequence[int] = (1,),
        shared: int = 0,
        seed: int = 0,
        threads: int = 0,
        touched: Sequence[np.ndarray] | None = None,
    ) -> Counts:
        """Runs a kernel.

        Args:
            shared: bytes of dynamic shared memory of a block.
            seed: of the order of warps and blocks; 0 is their natural one.
            threads: of this machine; 0: all.
            touched: all that may be touched, if it is more or less than the arrays among the arguments.

        Raises:
            PtxError: the kernel did what it may not.
        """
        arrays = [a for a in arguments if isinstance(a, np.ndarray)] if touched is None else touched
        values = [argument.ctypes.data if isinstance(argument, np.ndarray) else argument for argument in arguments]
        bytes_of = [np.uint64(v).tobytes() if isinstance(v, int) else v.tobytes() for v in values]
        sizes = self.parameters(entry)
        if [len(value) for value in bytes_of] != sizes:
            raise PtxError(f"{entry} has parameters of {sizes} bytes, not of {[len(value) for value in bytes_of]}")
        buffers = [ctypes.create_string_buffer(value, len(value)) for value in bytes_of]
        places = (ctypes.c_void_p * len(buffers))(*(ctypes.addressof(buffer) for buffer in buffers))
        spans = [place for array in arrays for place in (array.ctypes.data, array.ctypes.data + array.nbytes)]
        ranges = (ctypes.c_uint64 * max(len(spans), 1))(*spans)
        counts = (ctypes.c_uint64 * 2)()
        launch = _Launch(
            entry=entry.encode(),
            grid=_three(grid),
            block=_three(block),
            dynamic_shared=shared,
            arguments=places,
            ranges=ranges,
            num_ranges=len(arrays),
            seed=seed,
            threads=threads,
            races=1,
        )
        if _library().ptx_execute(self._handle, ctypes.byref(launch), counts):
            raise _error()
        return Counts(*counts)


def _three(extents: Sequence[int]) -> ctypes.Array[ctypes.c_uint]:
    return (ctypes.c_uint * 3)(*extents, *[1] * (3 - len(extents)))
