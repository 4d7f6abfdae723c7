"""Memory whose neighbours nobody may touch: a tensor that lies directly against a page without any access rights.

What lies on the same page beside the tensor, on its other side, holds a pattern that is compared afterwards.
"""

from __future__ import annotations

import ctypes
import mmap
from enum import Enum

import numpy as np
import tvm_ffi

PATTERN = 0xA5
NO_ACCESS = 0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Side(Enum):
    """Where the guard touches the tensor."""

    BEFORE = "before"
    BEHIND = "behind"


class GuardedArray:
    """A copy of an array that begins or ends at a guard page; `tensor` is TVM's view of it, without another copy."""

    def __init__(self, array: np.ndarray, side: Side) -> None:
        page = mmap.PAGESIZE
        room = -(-max(array.nbytes, 1) // page) * page
        self._memory = mmap.mmap(-1, room + 2 * page)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for guard in (address, address + page + room):
            if _libc.mprotect(guard, page, NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect failed")
        self._start = 0 if side is Side.BEFORE else room - array.nbytes
        self._size = array.nbytes
        self._room = np.frombuffer(self._memory, np.uint8, room, page)
        self._room[:] = PATTERN
        self._room[self._start : self._start + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
        self.array = np.frombuffer(self._memory, array.dtype, array.size, page + self._start).reshape(array.shape)
        # Kernels may rely on tensors that begin at a multiple of 64 bytes. Against the guard behind, one begins where
        # its size puts it: aligned enough for the vectors in which it is read, because they divide its size.
        self.tensor = tvm_ffi.from_dlpack(self.array, require_alignment=0)

    def touched_beside(self) -> bool:
        """Whether anything was written next to the tensor, on its own pages."""
        beside = np.concatenate([self._room[: self._start], self._room[self._start + self._size :]])
        return bool((beside != PATTERN).any())
