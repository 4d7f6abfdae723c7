"""Small kernels in PTX around a few instructions, for tests: a thread has an element of every array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptx.interpreter import Program

HEADER = ".version 8.0\n.target sm_90\n.address_size 64\n"
REGISTERS = """
.reg .pred %p<20>; .reg .b16 %h<20>; .reg .b32 %r<40>; .reg .f32 %f<20>; .reg .b64 %rd<40>; .reg .f64 %d<20>;
"""
TYPES = {1: ("u8", "%h"), 2: ("b16", "%h"), 4: ("b32", "%r"), 8: ("b64", "%rd")}


def kernel(body: str, parameters: int, *, shared: int = 0, outside: str = "") -> str:
    """An entry `k` with so many pointers as parameters: %rd20 and following; %r30 is the thread's number."""
    declared = ", ".join(f".param .u64 p{i}" for i in range(parameters))
    loads = "\n".join(f"ld.param.u64 %rd{20 + i}, [p{i}];" for i in range(parameters))
    memory = f".shared .align 16 .b8 memory[{shared}];" if shared else ""
    start = f"{loads}\nmov.u32 %r30, %tid.x;\nmul.wide.u32 %rd39, %r30, 4;"
    return f"{HEADER}{outside}.visible .entry k({declared})\n{{{REGISTERS}{memory}\n{start}\n{body}\nret;\n}}\n"


def apply(instructions: str, inputs: Sequence[np.ndarray], output: np.ndarray) -> np.ndarray:
    """Instructions on registers i0, i1, ... (inputs of a thread) that leave its result in o; 32 threads or as many as
    arrays have elements. Registers are untyped: their sizes are those of the arrays' elements."""
    arrays = [*inputs, output]
    names, code = {}, []
    for number, array in enumerate(arrays):
        size, last = array.itemsize, number == len(inputs)
        kind, prefix = TYPES[size]
        names["o" if last else f"i{number}"] = f"{prefix}{number + 1}"
        address = f"%rd{30 + number}"
        code.append(f"mul.wide.u32 {address}, %r30, {size}; add.s64 {address}, {address}, %rd{20 + number};")
        if not last:
            code.append(f"ld.global.{kind} {prefix}{number + 1}, [%rd{30 + number}];")
    for name, register in names.items():
        instructions = instructions.replace("{" + name + "}", register)
    kind, prefix = TYPES[output.itemsize]
    code.append(instructions)
    code.append(f"st.global.{kind} [%rd{30 + len(inputs)}], {prefix}{len(inputs) + 1};")
    result = output.copy()
    Program(kernel("\n".join(code), len(arrays))).launch("k", [*inputs, result], block=(output.size,))
    return result
