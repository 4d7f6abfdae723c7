"""Which grids a kernel's host function launches for given extents: its statements, carried out.

Kernels of the device are numbered in the order in which the function names their grids, launched or not, as TVM names
them when it splits device from host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import sym, tirx


@dataclass(frozen=True)
class Launch:
    """One grid.

    Args:
        index: of the kernel.
        grid: blocks; None where they depend on something that was not given.
    """

    index: int
    threads: int
    grid: int | None


def launches(function: tirx.PrimFunc, extents: Mapping[str, int]) -> list[Launch]:
    """The grids that are launched, in order.

    Args:
        extents: of the function's symbolic extents, by name.
    """
    walk = _Walk()
    bound = set()
    for parameter in function.params:
        for extent in getattr(parameter.ty, "shape", ()):
            if isinstance(extent, tvm.ir.Var) and extent.name in extents and extent.name not in bound:
                walk.analyzer.bind(extent, tirx.IntImm(str(extent.ty.dtype), extents[extent.name]))
                bound.add(extent.name)
    walk.statement(function.body, launched=True)
    return walk.found


class _Walk:
    def __init__(self) -> None:
        self.found: list[Launch] = []
        self.analyzer, self._count = sym.Analyzer(), 0

    def statement(self, node: tirx.Stmt, *, launched: bool) -> None:
        if isinstance(node, tirx.SeqStmt):
            for part in node.seq:
                self.statement(part, launched=launched)
        elif isinstance(node, tirx.Bind):
            if str(node.var.ty.dtype) in ("int32", "int64", "bool"):
                self.analyzer.bind(node.var, self._value(node.value))
        elif isinstance(node, tirx.IfThenElse):
            condition = self._value(node.condition)
            known = int(condition) if isinstance(condition, tirx.IntImm) else None
            self.statement(node.then_case, launched=launched and known != 0)
            if node.else_case is not None:
                self.statement(node.else_case, launched=launched and known != 1)
        elif isinstance(node, tirx.AttrStmt):
            self._grid(node, launched)

    def _grid(self, node: tirx.AttrStmt, launched: bool) -> None:
        sizes: dict[str, tvm.ir.Expr] = {}
        inner: tirx.Stmt = node
        while isinstance(inner, tirx.AttrStmt):
            if inner.attr_key == "thread_extent":
                sizes[inner.node.thread_tag] = self._value(inner.value)
            inner = inner.body
        if "threadIdx.x" not in sizes:
            self.statement(inner, launched=launched)
            return
        blocks = [sizes[tag] for tag in ("blockIdx.x", "blockIdx.y") if tag in sizes]
        known = [int(extent) for extent in blocks if isinstance(extent, tirx.IntImm)]
        grid = None
        if len(known) == len(blocks):
            grid = 1
            for extent in known:
                grid *= extent
        if launched:
            self.found.append(Launch(self._count, int(sizes["threadIdx.x"]), grid))
        self._count += 1

    def _value(self, value: tvm.ir.Expr) -> tvm.ir.Expr:
        return self.analyzer.simplify(value)
