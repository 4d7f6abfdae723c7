"""`single_launch`: a pass that turns all kernels of a function into one launch of the thread pool.

Waking TVM's threads costs microseconds, a barrier among threads that are awake half of one, and a step of a small model
has hundreds of kernels. The pass takes a Relax function whose memory is planned, in which kernels are called one after
the other. It cuts every kernel into its parallel loops (its *stages*), makes of each stage a subroutine that does one
worker's share of the loop, and puts one function in place of all the calls: one parallel region, in which every worker
calls the stages in order, with a barrier behind each.

Stages are shared: thirty layers of one shape call the same subroutines with other pointers.

A kernel must consist of declarations, bindings, and one region of parallel loops, as `kernels.cpu.emit` makes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relax, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir

from cupola.kernels.cpu.emit import TILED

REGION = "pragma_parallel_launch_point"
BARRIER = "pragma_parallel_barrier_when_finish"
STAGE = "cupola.stage"  # marks a subroutine
INT32 = tvm.ir.PrimType("int32")
CPU_DEVICE = 1  # DLPack's kDLCPU
NUM_WORKERS = "cupola.num_workers"  # of the step that the calling thread begins (cpp/model/library_threads.h)


def single_launch(module: tvm.IRModule, name: str, num_workers: str = NUM_WORKERS) -> tvm.IRModule:
    """Rewrites the function `name` of a module with planned memory; other functions stay as they are.

    Args:
        num_workers: the global function () -> int that says among how many threads a step is dealt out.

    Raises:
        ValueError: a kernel does not have the form that the pass can cut.
    """
    function = module[name]
    calls = _kernel_calls(module, function)
    arguments = _Arguments(function)
    stages = _Stages(module)
    launched = [
        _StageCall(stage, [arguments.resolve(argument) for argument in call.args])
        for call in calls
        for stage in stages.of(call.op)
    ]
    builder = relax.BlockBuilder(module)
    step = builder.add_func(_launch_function(arguments, launched, num_workers), f"{name}_launch")
    builder.update_func(module.get_global_var(name), _with_one_call(function, calls, step, arguments.tensors()))
    result = builder.finalize()
    for stage in stages.all():
        result[stage.symbol] = stage.subroutine()
    return relax.transform.DeadCodeElimination()(result)


def hide_stages(module: tvm.IRModule) -> tvm.IRModule:
    """Makes subroutines internal again, after a pass that gave every function a symbol: they are called directly."""
    for name, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc) and STAGE in function.attrs:
            module[name] = function.without_attr("global_symbol")
    return module


# Kernels into stages


@dataclass(frozen=True)
class _Stage:
    """One parallel loop of a kernel, and what must precede it."""

    symbol: tvm.ir.GlobalVar
    kernel: tirx.PrimFunc
    prologue: tuple[tirx.stmt.Stmt, ...]
    loop: tirx.For

    @property
    def extents(self) -> list[tirx.Var]:
        """The kernel's symbolic extents, each once."""
        found: list[tirx.Var] = []
        for parameter in self.kernel.params:
            for extent in parameter.ty.shape:
                if isinstance(extent, tirx.Var) and not any(extent.same_as(other) for other in found):
                    found.append(extent)
        return found

    def subroutine(self) -> tirx.PrimFunc:
        """(worker, workers, extents, pointers): the worker's share of the loop."""
        worker, workers = tirx.Var("worker", "int64"), tirx.Var("workers", "int64")
        pointers = [tirx.Var(p.name, tvm.ir.PointerType(tvm.ir.PrimType(str(p.ty.dtype)))) for p in self.kernel.params]
        prologue = [_with_pointers(statement, self.kernel.params, pointers) for statement in self.prologue]
        loop = self.loop
        begin, end = tirx.Var("begin", "int64"), tirx.Var("end", "int64")
        share = [
            tirx.Bind(begin, tirx.op.truncdiv(loop.extent * worker, workers)),
            tirx.Bind(end, tirx.op.truncdiv(loop.extent * (worker + 1), workers)),
            tirx.For(loop.loop_var, begin, end - begin, tirx.ForKind.SERIAL, loop.body),
            tirx.Return(tirx.IntImm("int32", 0)),  # TVM returns -1 where workspace cannot be had
        ]
        body: tirx.stmt.Stmt = tirx.SeqStmt([*prologue, *share])
        # Where workspace comes from; functions with a packed interface get this from TVM.
        for key, value in (("device_id", 0), ("device_type", CPU_DEVICE)):
            body = tirx.AttrStmt(0, key, tirx.IntImm("int32", value), body)
        function = tirx.PrimFunc([worker, workers, *self.extents, *pointers], body, ret_type=INT32)
        kept = {TILED: True} if TILED in self.kernel.attrs else {}
        return function.with_attr({"tirx.noalias": True, STAGE: True, **kept})


class _Stages:
    """The stages of a module's kernels, cut once a kernel."""

    def __init__(self, module: tvm.IRModule) -> None:
        self._module = module
        self._by_kernel: dict[str, list[_Stage]] = {}

    def of(self, kernel: tvm.ir.GlobalVar) -> list[_Stage]:
        name = kernel.name_hint
        if name not in self._by_kernel:
            function = self._module[kernel]
            self._by_kernel[name] = [
                _Stage(tvm.ir.GlobalVar(f"{name}_stage{i}"), function, prologue, loop)
                for i, (prologue, loop) in enumerate(_cut(function.body, []))
            ]
        return self._by_kernel[name]

    def all(self) -> Iterator[_Stage]:
        for stages in self._by_kernel.values():
            yield from stages


def _cut(
    statement: tirx.stmt.Stmt, prologue: list[tirx.stmt.Stmt]
) -> Iterator[tuple[tuple[tirx.stmt.Stmt, ...], tirx.For]]:
    """Yields each parallel loop with the declarations and bindings before it."""
    if isinstance(statement, tirx.SeqStmt):
        for part in statement.seq:
            yield from _cut(part, prologue)
    elif isinstance(statement, tirx.DeclBuffer | tirx.Bind):
        prologue.append(statement)
    elif isinstance(statement, tirx.AttrStmt) and statement.attr_key in (REGION, BARRIER):
        yield from _cut(statement.body, prologue)
    elif isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL:
        yield tuple(prologue), statement
    else:
        raise ValueError(f"a kernel has a {type(statement).__name__} outside its parallel loops")


def _with_pointers(
    statement: tirx.stmt.Stmt, parameters: Sequence[tirx.Var], pointers: Sequence[tirx.Var]
) -> tirx.stmt.Stmt:
    """Views of tensor parameters become views of pointers."""
    if isinstance(statement, tirx.DeclBuffer):
        for parameter, pointer in zip(parameters, pointers, strict=True):
            if statement.data.args[0].same_as(parameter):
                return tirx.DeclBuffer(statement.buffer, data=pointer)
    return statement


# Relax


def _kernel_calls(module: tvm.IRModule, function: relax.Function) -> list[relax.Call]:
    """The calls of kernels, in order."""
    return [b.value for b in _bindings(function) if _is_kernel_call(b, module)]


def _bindings(function: relax.Function) -> Iterator[relax.Binding]:
    for block in function.body.blocks:
        yield from block.bindings


def _is_kernel_call(binding: relax.Binding, module: tvm.IRModule) -> bool:
    value = binding.value
    return (
        isinstance(value, relax.Call)
        and isinstance(value.op, tvm.ir.GlobalVar)
        and isinstance(module[value.op], tirx.PrimFunc)
    )


def _with_one_call(
    function: relax.Function, calls: Sequence[relax.Call], step: tvm.ir.GlobalVar, tensors: Sequence[relax.Expr]
) -> relax.Function:
    """All other bindings in their order (none depends on a kernel: they write into their arguments), then the call."""
    kept = [b for b in _bindings(function) if not any(b.value.same_as(call) for call in calls)]
    call = relax.Call(step, list(tensors), ty_args=[relax.TupleType([])])
    kept.append(relax.VarBinding(relax.Var("_", relax.TupleType([])), call))
    body = relax.SeqExpr([relax.BindingBlock(kept)], function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


@dataclass(frozen=True)
class _Tensor:
    """A kernel's argument: which argument of the launch function holds its data, and its extents there."""

    position: int
    extents: tuple[tirx.Var | tirx.IntImm, ...]


@dataclass(frozen=True)
class _StageCall:
    stage: _Stage
    tensors: list[_Tensor]


@dataclass
class _Arguments:
    """The tensors that all kernels together work on, each once.

    Tensors that share planned storage share an argument too, since only addresses reach the subroutines; those whose
    extents are not plain variables have one of their own, so that the extents can be read from it.
    """

    function: relax.Function
    _bound: dict[str, relax.Expr] = field(default_factory=dict)
    _positions: dict[str, int] = field(default_factory=dict)
    _tensors: list[relax.Expr] = field(default_factory=list)
    _extents: dict[str, tirx.Var] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for binding in _bindings(self.function):
            self._bound[_identity(binding.var)] = binding.value
        # The function's own arguments come first, because they are what binds its symbolic extents.
        for parameter in self.function.params:
            if isinstance(parameter.ty, relax.TensorType):
                self.resolve(parameter)

    def tensors(self) -> list[relax.Expr]:
        """The arguments of the launch function, in order."""
        return self._tensors

    def resolve(self, expression: relax.Expr) -> _Tensor:
        """Finds (or makes) the argument of a tensor."""
        tensor = self._origin(expression)
        key = self._key(tensor)
        if key not in self._positions:
            self._positions[key] = len(self._tensors)
            self._tensors.append(tensor)
        return _Tensor(self._positions[key], self.extents(tensor))

    def extents(self, tensor: relax.Expr) -> tuple[tirx.Var | tirx.IntImm, ...]:
        """A tensor's shape in variables of the launch function."""
        return tuple(self._extent(extent) for extent in tensor.ty.shape.values)

    def _extent(self, extent: relax.Expr) -> tirx.Var | tirx.IntImm:
        if isinstance(extent, tirx.IntImm):
            return extent
        name = str(extent)
        if name not in self._extents:
            plain = isinstance(extent, tirx.Var)
            self._extents[name] = tirx.Var(name if plain else f"extent{len(self._extents)}", "int64")
        return self._extents[name]

    def _origin(self, expression: relax.Expr) -> relax.Expr:
        """Follows aliases and tuples to where a tensor was made."""
        if isinstance(expression, relax.Var) and _identity(expression) in self._bound:
            value = self._bound[_identity(expression)]
            if isinstance(value, relax.Var):
                return self._origin(value)
            if isinstance(value, relax.TupleGetItem):
                whole = self._origin(value.tuple_value)
                if isinstance(whole, relax.Var) and isinstance(self._bound.get(_identity(whole)), relax.Tuple):
                    return self._origin(self._bound[_identity(whole)].fields[value.index])
        return expression

    def _key(self, tensor: relax.Expr) -> str:
        value = self._bound.get(_identity(tensor)) if isinstance(tensor, relax.Var) else None
        if isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.memory.alloc_tensor":
            storage, offset, shape = value.args[:3]
            plain = all(isinstance(extent, tirx.Var | tirx.IntImm) for extent in shape.values)
            return f"{_identity(storage)} {offset} {'' if plain else shape}"
        return _identity(tensor)


def _identity(node: relax.Expr) -> str:
    """A key for a node itself; two nodes of equal content differ."""
    return str(hash(node))


# The launch function


def _launch_function(arguments: _Arguments, calls: Sequence[_StageCall], num_workers: str) -> tirx.PrimFunc:
    """One region, in which every worker does its share of all stages in order."""
    with IRBuilder() as builder, ir.prim_func(is_private=True):
        ir.func_name("launch")
        handles = [
            ir.arg(f"t{i}", ir.buffer(arguments.extents(tensor), str(tensor.ty.dtype)))
            for i, tensor in enumerate(arguments.tensors())
        ]
        threads = tirx.call_intrin("int32", "tirx.tvm_call_packed", tvm.ir.StringImm(num_workers))
        workers = ir.Bind(tirx.Cast("int64", threads))
        with ir.attr(0, REGION, 1):
            for call in calls:
                pointers = [handles[tensor.position].data for tensor in call.tensors]
                with ir.attr(0, BARRIER, 1), ir.parallel(tirx.IntImm("int64", 0), workers) as worker:
                    operands = [worker, workers, *_extent_values(call), *pointers]
                    ir.evaluate(tvm.ir.Call(call.stage.symbol, operands, ret_ty=INT32))
    return builder.get()


def _extent_values(call: _StageCall) -> list[tirx.Var | tirx.IntImm]:
    """Values of the kernel's symbolic extents, read off the tensors that it is called with."""
    values: dict[str, tirx.Var | tirx.IntImm] = {}
    for parameter, tensor in zip(call.stage.kernel.params, call.tensors, strict=True):
        for extent, value in zip(parameter.ty.shape, tensor.extents, strict=True):
            if isinstance(extent, tirx.Var):
                values.setdefault(_identity(extent), value)
    return [values[_identity(extent)] for extent in call.stage.extents]
