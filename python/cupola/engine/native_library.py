"""The native libraries: where they are, how they are loaded, and the C++ functions by their names.

Only the `native*` modules of this folder use it. It knows no engine and no model.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import tvm_ffi

from cupola.errors import EngineError

LIBRARY_VARIABLE = "CUPOLA_NATIVE_LIBRARY"
"""Environment variable: the path of a library to load instead of the installed one (sanitizer builds)."""


def native(name: str) -> Callable[..., Any]:
    """The C++ function registered as `cupola.NAME`; its types are known to its callers, the `native*` modules."""
    return _load_functions(name)


def device(kind: str, index: int = 0) -> object:
    """A device as the C++ functions take it."""
    return tvm_ffi.device(kind, index)


@cache
def _load_functions(name: str) -> Callable[..., Any]:
    _load_library()
    return cast("Callable[..., Any]", tvm_ffi.get_global_func(f"cupola.{name}"))


@cache
def _load_library() -> object:
    override = os.environ.get(LIBRARY_VARIABLE)
    try:
        if override:
            return tvm_ffi.load_module(override)
        return tvm_ffi.libinfo.load_lib_module("cupola", "cupola_native")
    except (RuntimeError, OSError) as error:
        raise EngineError(
            f"the native library cannot be loaded: {first_line(error)}", hint="install cupola with pip"
        ) from error


@cache
def load_tvm_runtime(name: str = "libtvm_runtime.so") -> object:
    """Load TVM's runtime library, or one of its parts, for everybody, without the cost of importing tvm."""
    spec = importlib.util.find_spec("tvm")
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / "lib" / name
        if path.is_file():
            return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    raise EngineError(f"{name} was not found", hint="install the package apache-tvm")


def first_line(error: BaseException) -> str:
    """What an exception says, without the traceback of the C++ side."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
