"""Lowering of our kernels: the few TIR passes that they need.

TVM's default pipeline spends most of a minute on a model here, in passes that schedule, simplify and search for common
subexpressions; our kernels come scheduled, simplified and with every repeated value named, and LLVM does the rest.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.s_tir.pipeline import finalize_device_passes, finalize_host_passes

from cupola.compiler.target import CpuTarget, Target
from cupola.kernels.cpu.emit import TILED

CPU_PIPELINE = "cupola_cpu"
GPU_PIPELINE = "cupola_gpu"


def register() -> None:
    """Makes the pipelines known to TVM under their names; may be called again."""
    tirx.register_tir_pipeline(CPU_PIPELINE, _cpu_pipeline)
    tirx.register_tir_pipeline(GPU_PIPELINE, _gpu_pipeline)


def of(target: Target) -> str:
    """The name of the pipeline for a target."""
    return CPU_PIPELINE if isinstance(target, CpuTarget) else GPU_PIPELINE


def _cpu_pipeline() -> tuple[tvm.transform.Pass, object, object]:
    return to_functions(_flatten_buffers()), _finalize_cpu_passes, finalize_device_passes


def _gpu_pipeline() -> tuple[tvm.transform.Pass, object, object]:
    return to_functions(), finalize_host_passes, _finalize_gpu_passes


def to_functions(flatten: tvm.transform.Pass | None = None) -> tvm.transform.Pass:
    """Functions that can be called, of the host and of the device; `flatten` in place of TVM's pass of that purpose."""
    return tvm.transform.Sequential(
        [
            tirx.transform.ConvertSSA(),  # stages of one kernel come with the same variables
            flatten or tirx.transform.FlattenBuffer(),
            tirx.transform.VerifyMemory(),
            tirx.transform.AnnotateEntryFunc(),
            tirx.transform.SplitHostDevice(),
            tirx.transform.MakePackedAPI(),
            # The virtual machine has checked every argument when a kernel is called.
            tirx.transform.SkipAssert(),
        ]
    )


def _finalize_gpu_passes() -> tvm.transform.Pass:
    """TVM's own would simplify too, which writes every named value out wherever it is used: ten times the source."""
    return tirx.transform.LowerIntrin()


def _flatten_buffers() -> tvm.transform.Pass:
    """TVM's pass for all but kernels with tiles, whose buffers are flat.

    It simplifies indices by the values of the names in them, so that each load would compute its whole address anew,
    and finding out that they have it all in common was three quarters of LLVM's work on a product.
    """
    flatten = tirx.transform.FlattenBuffer()

    def of_function(
        function: tirx.PrimFunc, _module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tirx.PrimFunc:
        if TILED in function.attrs:
            return function
        (flattened,) = flatten(tvm.IRModule({"kernel": function})).functions.values()
        return flattened

    return tirx.transform.prim_func_pass(of_function, opt_level=0, name="cupola.flatten_buffers")


def _finalize_cpu_passes() -> tvm.transform.Pass:
    """TVM's own, and what spares its code generator the histories of indices."""
    return tvm.transform.Sequential([finalize_host_passes(), _indices_without_history()])


def _indices_without_history() -> tvm.transform.Pass:
    """In kernels with tiles every named index is read back from the stack, which LLVM's first passes remove again.

    TVM's code generator simplifies the value of every name, with each name in it replaced by its own value. Where rows
    are covered by tiles of eight, of seven, ... of one, each index has the one before twice in it, so that this took
    minutes for a mixture of experts. A load has no history. It has no known alignment either, which attention's copies
    of vectors profit from and products do not: theirs are the same instructions.
    """

    def of_function(
        function: tirx.PrimFunc, _module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tirx.PrimFunc:
        return function.with_body(_without_history(function.body)) if TILED in function.attrs else function

    return tirx.transform.prim_func_pass(of_function, opt_level=0, name="cupola.indices_without_history")


def _without_history(statement: tirx.stmt.Stmt) -> tirx.stmt.Stmt:
    """The statement with a load as the value of every index that it names."""
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([new for part in statement.seq for new in _parts(part)])
    if isinstance(statement, tirx.For):
        bounds = (statement.loop_var, statement.min, statement.extent, statement.kind)
        return tirx.For(*bounds, _without_history(statement.body), statement.thread_binding, statement.annotations)
    if isinstance(statement, tirx.AttrStmt):
        return tirx.AttrStmt(statement.node, statement.attr_key, statement.value, _without_history(statement.body))
    if isinstance(statement, tirx.IfThenElse):
        otherwise = None if statement.else_case is None else _without_history(statement.else_case)
        return tirx.IfThenElse(statement.condition, _without_history(statement.then_case), otherwise)
    return statement


def _parts(statement: tirx.stmt.Stmt) -> list[tirx.stmt.Stmt]:
    """A statement of a sequence, or what stands in the place of one that names an index."""
    if not isinstance(statement, tirx.Bind):
        return [_without_history(statement)]
    variable = statement.var
    if str(getattr(variable.ty, "dtype", "")) != "int64":
        return [statement]
    cell, first = tirx.decl_buffer((1,), "int64", variable.name), tirx.IntImm("int64", 0)
    load = tirx.Bind(variable, tirx.BufferLoad(cell, [first]))
    return [tirx.AllocBuffer(cell), tirx.BufferStore(cell, statement.value, [first]), load]
