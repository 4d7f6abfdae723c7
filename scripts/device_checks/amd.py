"""AMD's code objects as LLVM's tools see them, and as TVM's launcher will call them."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass, field

READELF = "llvm-readelf-19"
_EM_AMDGPU = 224
_ARGUMENT = r"\.offset:\s+(\d+)\n\s+\.size:\s+(\d+)\n\s+\.value_kind:\s+(?!hidden)"


@dataclass(slots=True)
class Kernel:
    """One kernel of a code object: its arguments as (offset, size), and what it takes of the processor."""

    name: str
    arguments: list[tuple[int, int]] = field(default_factory=list)
    shared_bytes: int = 0
    spilled: int = 0
    wavefront: int = 0


@dataclass(frozen=True, slots=True)
class CodeObject:
    """A code object: the architecture in its header, its undefined symbols, its kernels."""

    arch: str
    undefined: tuple[str, ...]
    kernels: tuple[Kernel, ...]


def missing() -> str | None:
    """The tool that is not installed."""
    return None if shutil.which(READELF) else "llvm-19 is not installed"


def read_code_object(library: bytes) -> CodeObject:
    """The code object inside a compiled library. ValueError: there is none."""
    headers = (at.start() for at in re.finditer(b"\x7fELF", library))
    code = next((library[at:] for at in headers if _is_amd(library, at)), None)
    if code is None:
        raise ValueError("the library has no code object for AMD's GPUs")
    with tempfile.NamedTemporaryFile(suffix=".hsaco") as file:
        file.write(code)
        file.flush()
        command = [READELF, "--file-header", "--dyn-syms", "--notes", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Flags:.*?(gfx\w+)", text)
    undefined = re.findall(r"[ \t]UND[ \t]+(\S+)", text)
    return CodeObject(found[1] if found else "", tuple(undefined), tuple(_kernels(text)))


def _is_amd(library: bytes, at: int) -> bool:
    return len(library) > at + 20 and struct.unpack_from("<H", library, at + 18)[0] == _EM_AMDGPU


def _kernels(text: str) -> list[Kernel]:
    """From the metadata that readelf prints: each kernel is an item that begins with its arguments."""
    kernels: list[Kernel] = []
    items = re.split(r"^  - ", text[text.index("amdhsa.kernels:") :], flags=re.MULTILINE)[1:]
    for item in items:
        arguments = [(int(offset), int(size)) for offset, size in re.findall(_ARGUMENT, item)]
        number = {key: int(value) for key, value in re.findall(r"^    \.(\w+):\s+(\d+)$", item, flags=re.MULTILINE)}
        name = re.search(r"^    \.name:\s+(\S+)", item, flags=re.MULTILINE)
        if name:
            spilled = number.get("vgpr_spill_count", 0) + number.get("private_segment_fixed_size", 0)
            shared = number.get("group_segment_fixed_size", 0)
            kernels.append(Kernel(name[1], arguments, shared, spilled, number.get("wavefront_size", 0)))
    return kernels


def launched_arguments(library: bytes, kernel: str) -> list[tuple[int, int]]:
    """(offset, size) of each argument as TVM's launcher packs it: in order, each at a multiple of its own size.

    The types are those in the library's table of functions: a name, a name again, a count, a DLDataType for each.

    Raises:
        ValueError: the table lacks the kernel.
    """
    name = struct.pack("<Q", len(kernel)) + kernel.encode()
    at = library.find(name + name)
    if at < 0:
        raise ValueError(f"the library's table of functions lacks {kernel}")
    at += 2 * len(name)
    (count,) = struct.unpack_from("<Q", library, at)
    packed: list[tuple[int, int]] = []
    end = 0
    for i in range(count):
        _, bits, lanes = struct.unpack_from("<BBH", library, at + 8 + 4 * i)
        size = bits * lanes // 8
        begin = -(-end // size) * size
        packed.append((begin, size))
        end = begin + size
    return packed
