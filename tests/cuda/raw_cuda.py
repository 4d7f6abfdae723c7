"""CUDA's functions as they are, by ctypes, for tests of the stand-in itself; for processes of their own.

cuda = Cuda(folder)
cuda("cudaMalloc", byref(data), 64)  # raises CudaError with the error's number
"""

from __future__ import annotations

import ctypes
import struct
from ctypes import byref, c_void_p
from pathlib import Path

UPLOAD, DOWNLOAD, COPY = 1, 2, 3
NON_BLOCKING = 1
GLOBAL, RELAXED = 0, 2  # modes of capture
DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

KERNELS = b"""
.version 8.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 given[];

// Adds `by` to a word.
.visible .entry add(.param .u64 word, .param .u32 by)
{
  .reg .b32 %r<3>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [word];
  ld.param.u32 %r1, [by];
  ld.global.u32 %r2, [%rd1];
  add.s32 %r2, %r2, %r1;
  st.global.u32 [%rd1], %r2;
  ret;
}
.visible .entry shared()
{
  .shared .align 4 .b8 own[1024];
  ret;
}
.visible .entry narrow()
.maxntid 64, 1, 1
{
  ret;
}
"""


class CudaError(Exception):
    """What a function returned that was not 0."""


class Cuda:
    """Both libraries."""

    def __init__(self, folder: Path) -> None:
        self.driver = ctypes.CDLL(str(folder / "libcuda.so.1"))
        self.runtime = ctypes.CDLL(str(folder / "libcudart.so.13"))

    def __call__(self, name: str, *arguments: object) -> None:
        library = self.runtime if name.startswith("cuda") else self.driver
        error = library[name](*arguments)
        if error:
            raise CudaError(error)

    def error(self, name: str, *arguments: object) -> int:
        """The error of a call; 0: none."""
        try:
            self(name, *arguments)
        except CudaError as error:
            return int(error.args[0])
        return 0

    def malloc(self, size: int) -> c_void_p:
        """Memory of the device."""
        data = c_void_p()
        self("cudaMalloc", byref(data), ctypes.c_size_t(size))
        return data

    def stream(self, flags: int = 0) -> c_void_p:
        """A new stream."""
        made = c_void_p()
        self("cudaStreamCreateWithFlags", byref(made), flags)
        return made

    def write(self, data: c_void_p, value: int, stream: c_void_p | None = None) -> ctypes.c_int:
        """Asks for a word to be written; returns where it is read from."""
        word = ctypes.c_int(value)
        self("cudaMemcpyAsync", data, byref(word), ctypes.c_size_t(4), UPLOAD, stream)
        return word

    def read(self, data: c_void_p, stream: c_void_p | None = None) -> int:
        """A word, once the stream is there."""
        word = ctypes.c_int(77)
        self("cudaMemcpyAsync", byref(word), data, ctypes.c_size_t(4), DOWNLOAD, stream)
        self("cudaStreamSynchronize", stream)
        return word.value

    def kernel(self, name: str, image: bytes = KERNELS) -> c_void_p:
        """A function of a module."""
        module, function = c_void_p(), c_void_p()
        self("cudaSetDevice", 0)
        self("cuModuleLoadData", byref(module), image)
        self("cuModuleGetFunction", byref(function), module, name.encode())
        return function

    def launch(
        self,
        function: c_void_p,
        *arguments: ctypes._SimpleCData,
        grid: tuple[int, int, int] = (1, 1, 1),
        block: tuple[int, int, int] = (1, 1, 1),
        shared: int = 0,
        stream: c_void_p | None = None,
    ) -> int:
        """The error of a launch."""
        handle = (stream.value if stream is not None else None) or 0
        config = struct.pack("<7IxxxxQQI", *grid, *block, shared, handle, 0, 0)
        pointers = (c_void_p * (len(arguments) or 1))(*(ctypes.addressof(argument) for argument in arguments))
        return self.error("cuLaunchKernelEx", config, function, pointers, None)
