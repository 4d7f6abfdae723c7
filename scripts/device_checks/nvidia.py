"""NVIDIA's machine code in a compiled library: for which architecture it is, and what each of its kernels takes.

The code is an ELF file (a cubin). What a kernel takes is in its sections: shared memory is the size of
`.nv.shared.KERNEL`; `.nv.info.KERNEL`, and `.nv.info` for all of them, hold attributes, of which each begins with a
format, a number and two bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_EM_CUDA = 190
_SHT_SYMTAB = 2
_FRAME_SIZE = 0x11  # (symbol, bytes of local memory of a thread): what does not fit into registers, and local arrays
_REGISTERS = 0x2F  # (symbol, registers of a thread)
_MAX_THREADS = 0x05  # (x, y, z) of a block
_CONTAINER = struct.pack("<I", 0xBA55ED50)
_CODE = 2  # the kind of entries that are machine code; 1 is PTX
_LONG = 0x04  # the format of attributes whose two bytes are the size of what follows


@dataclass(frozen=True, slots=True)
class Kernel:
    """What one kernel takes: registers a thread, shared memory a block, local memory a thread, and threads a block."""

    name: str
    registers: int
    shared_bytes: int
    local_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Cubin:
    """Machine code for one architecture, such as sm_90."""

    arch: str
    kernels: tuple[Kernel, ...]


def read_cubins(library: bytes) -> tuple[Cubin, ...]:
    """All machine code inside a compiled library."""
    starts = (at.start() for at in re.finditer(b"\x7fELF", library))
    return tuple(_Reader(library[at:]).cubin() for at in starts if _is_cuda(library, at))


def sources(library: bytes) -> tuple[str, ...]:
    """What in a library would need a compiler where it is loaded: CUDA C++, PTX, or PTX in a container."""
    marks = {b"__global__": "CUDA C++", b".visible .entry": "PTX", b".address_size": "PTX"}
    found = [name for mark, name in marks.items() if mark in library]
    kinds = {kind for at in re.finditer(_CONTAINER, library) for kind in _contained(library, at.start())}
    return (*dict.fromkeys(found), *(f"an entry of kind {kind} in a container" for kind in sorted(kinds - {_CODE})))


def _contained(library: bytes, at: int) -> Iterator[int]:
    """The kinds of a fat binary's entries, which each begin with kind, version, and the sizes of header and content."""
    _, header, size = struct.unpack_from("<HHQ", library, at + 4)
    at, end = at + header, at + header + size
    while at < end:
        kind, _, header, size = struct.unpack_from("<HHIQ", library, at)
        yield kind
        at += header + size


def needed_libraries(library: bytes) -> tuple[str, ...]:
    """The libraries that a library for x86-64 Linux asks the dynamic linker for."""
    reader = _Reader(library)
    dynamic, strings = reader.section(".dynamic"), reader.section(".dynstr")
    entries = struct.iter_unpack("<QQ", reader.data(dynamic)) if dynamic else ()
    table = reader.data(strings) if strings else b""
    return tuple(_text(table, value) for tag, value in entries if tag == 1)


def _is_cuda(library: bytes, at: int) -> bool:
    return len(library) > at + 20 and int(struct.unpack_from("<H", library, at + 18)[0]) == _EM_CUDA


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    offset: int
    size: int
    info: int


class _Reader:
    """An ELF file of 64 bits, little-endian."""

    def __init__(self, elf: bytes) -> None:
        self._elf = elf
        (begin,) = struct.unpack_from("<Q", elf, 0x28)
        size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
        headers = [struct.unpack_from("<IIQQQQIIQQ", elf, begin + i * size) for i in range(count)]
        table = elf[headers[names][4] :]
        self._sections = [_Section(_text(table, h[0]), h[1], h[4], h[5], h[7]) for h in headers]

    def section(self, name: str) -> _Section | None:
        return next((section for section in self._sections if section.name == name), None)

    def data(self, section: _Section) -> bytes:
        return self._elf[section.offset : section.offset + section.size]

    def cubin(self) -> Cubin:
        (flags,) = struct.unpack_from("<I", self._elf, 0x30)
        registers, frames = self._of_kernels(_REGISTERS), self._of_kernels(_FRAME_SIZE)
        names = (s.name.removeprefix(".text.") for s in self._sections if s.name.startswith(".text."))
        kernels = (self._kernel(name, registers[name], frames[name]) for name in names)
        return Cubin(f"sm_{flags >> 8 & 0xFF}", tuple(kernels))

    def _kernel(self, name: str, registers: int, frame: int) -> Kernel:
        shared, info = self.section(f".nv.shared.{name}"), self.section(f".nv.info.{name}")
        threads = [struct.unpack("<III", value) for kind, value in self._attributes(info) if kind == _MAX_THREADS]
        (x, y, z) = threads[0] if threads else (0, 0, 0)
        return Kernel(name, registers, shared.size if shared else 0, frame, x * y * z)

    def _of_kernels(self, wanted: int) -> dict[str, int]:
        """An attribute that has a number for every kernel."""
        symbols = next(section for section in self._sections if section.kind == _SHT_SYMTAB)
        strings = self.data(self.section(".strtab") or symbols)
        entries = list(struct.iter_unpack("<IBBHQQ", self.data(symbols)))
        attributes = self._attributes(self.section(".nv.info"))
        pairs = (struct.unpack("<II", value) for kind, value in attributes if kind == wanted)
        return {_text(strings, entries[symbol][0]): number for symbol, number in pairs}

    def _attributes(self, section: _Section | None) -> Iterator[tuple[int, bytes]]:
        """Number and value of the attributes that have one."""
        data, at = self.data(section) if section else b"", 0
        while at < len(data):
            form, kind, size = struct.unpack_from("<BBH", data, at)
            at += 4
            if form == _LONG:
                yield kind, data[at : at + size]
                at += size


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()
