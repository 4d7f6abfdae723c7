"""Moves the memory of a block of threads to the top of its grid.

A kernel asks for it where it needs it, which may be within a branch. OpenCL C declares it in a kernel's outermost scope
only, and no other language minds.
"""

from __future__ import annotations

from tvm import tirx


def hoisted(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """The function with all shared memory that branches allocate at the top of the grid that they belong to."""
    return function.with_body(_grids(function.body))


def _grids(statement: tirx.Stmt) -> tirx.Stmt:
    """A statement of the host, whose grids are rewritten."""
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([_grids(part) for part in statement.seq])
    if isinstance(statement, tirx.IfThenElse):
        other = None if statement.else_case is None else _grids(statement.else_case)
        return tirx.IfThenElse(statement.condition, _grids(statement.then_case), other)
    if not isinstance(statement, tirx.AttrStmt):
        return statement
    body = statement.body
    found: list[tirx.Stmt] = []
    if isinstance(body, tirx.AttrStmt):
        body = _grids(body)
    else:
        body = _without(body, found)
        body = tirx.SeqStmt([*found, body]) if found else body
    return tirx.AttrStmt(statement.node, statement.attr_key, statement.value, body)


def _without(statement: tirx.Stmt, found: list[tirx.Stmt]) -> tirx.Stmt:
    """A statement of the device without its allocations of shared memory, which go to `found`."""
    if isinstance(statement, tirx.SeqStmt):
        parts = []
        for part in statement.seq:
            if isinstance(part, tirx.AllocBuffer) and part.buffer.scope().startswith("shared"):
                found.append(part)
            else:
                parts.append(_without(part, found))
        return tirx.SeqStmt(parts)
    if isinstance(statement, tirx.IfThenElse):
        other = None if statement.else_case is None else _without(statement.else_case, found)
        return tirx.IfThenElse(statement.condition, _without(statement.then_case, found), other)
    return statement
