"""One row a target: compiles the tiny model for it, looks at what came out, and runs it where that can be.

Every row is measured. What the compared libraries compute is `forward.py`: three prompts in one step, then greedy
decoding of all three together; the error is the largest difference of any logit from the library for x86-64-v3.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cuda_stand_in
import numpy as np

from compiled import compiled_folder
from cupola.compiler.compile import compile_model
from cupola.compiler.config import CompileConfig
from cupola.compiler.support import obstacle
from cupola.compiler.target import CpuTarget, GpuTarget, Target
from cupola.engine.choice import Machine
from cupola.engine.choice import obstacle as run_obstacle
from cupola.engine.native_devices import PLUGINS
from cupola.errors import CupolaError
from cupola.manifest import Library
from cupola.weights.source import open_checkpoint
from device_checks import amd, nvidia, shaders
from device_checks.arm import ArmMachine
from numerics.rounded import write_rounded
from tiny_models import TINY_MODELS

FORWARD = Path(__file__).with_name("forward.py")
REFERENCE = "cpu:x86-64-v3"
INTERPRETER = "our interpreter of PTX (`tests/ptx`), not a GPU"
ARM_PROCESSORS = {"plain": "cortex-a72", "dotprod": "neoverse-n1", "i8mm": "max"}  # qemu's names, each without the next


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a target.

    Args:
        compiled: the artifact's size in bytes; 0: it does not compile here.
        executed: on what; "" nowhere.
        error: the largest difference of a logit from the reference; None where it was not executed.
        checked: what was checked of the artifact, beside running it.
        missing: what stands between this row and a complete one.
    """

    target: str
    scheme: str
    compiled: int = 0
    executed: str = ""
    error: float | None = None
    checked: str = ""
    missing: str = ""


class Bench:
    """A folder in which the tiny model is compiled, and the machine on which Arm's libraries run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._source = folder / "model"
        self._arm = ArmMachine(folder / "arm")
        self._references: dict[str, np.ndarray] = {}
        if not self._source.exists():
            TINY_MODELS[0].write(self._source)

    def row(self, target: Target) -> Row:
        """Measures one target."""
        scheme = "f32" if isinstance(target, GpuTarget) and target.kind in PLUGINS else "q4"
        row = Row(target.name, scheme)
        why = obstacle(target)
        if why:
            return replace(row, missing=f"does not compile here: {why}")
        try:
            folder = self._compiled(target, scheme)
        except CupolaError as error:
            return replace(row, missing=f"does not compile here: {error.message}")
        row = replace(row, compiled=(folder / "lib.so").stat().st_size)
        if isinstance(target, CpuTarget):
            return self._on_processor(row, target, folder)
        row = _inspected(row, target, (folder / "lib.so").read_bytes())
        return self._on_gpu(row, target, folder)

    def _compiled(self, target: Target, scheme: str) -> Path:
        folder = self._folder / f"{target.label}-{scheme}"
        config = CompileConfig().with_quant(scheme)
        compile_model(open_checkpoint(str(self._source)), config, [target], folder, lambda _: None)
        return folder

    def _on_processor(self, row: Row, target: CpuTarget, folder: Path) -> Row:
        library = Library(file="lib.so", target=target.describe())
        why = run_obstacle(library, Machine.here())
        if why is None:
            logits = _run([sys.executable, str(FORWARD), str(folder)])
            return replace(row, executed="this machine", error=self._error(row.scheme, logits))
        if target.machine != "aarch64":
            return replace(row, missing=f"not executed here: {why}; qemu's user emulation has no AVX-512")
        lacking = self._arm.missing()
        if lacking:
            return replace(row, missing=f"not executed here: {lacking}")
        self._arm.prepare()
        cpu = ARM_PROCESSORS[target.isa]
        found = json.loads(self._arm.python(str(FORWARD), str(folder), cpu=cpu))
        error = self._error(row.scheme, np.array(found["logits"]))
        return replace(row, executed=f"qemu-user, {cpu}", error=error, missing="speed: no Arm processor was measured")

    def _on_gpu(self, row: Row, target: GpuTarget, folder: Path) -> Row:
        why = run_obstacle(Library(file="lib.so", target=target.describe()), Machine.here())
        if why is not None and target.kind == "cuda":
            row = replace(row, executed=INTERPRETER, error=self._interpreted(target.arch, row.scheme))
        if why is not None:
            return replace(row, missing=f"{row.missing}; {why}".removeprefix("; "))
        names = {device.name for device in Machine.here().devices if device.kind == target.kind}
        logits = _run([sys.executable, str(FORWARD), str(folder)])
        return replace(row, executed=", ".join(sorted(names)), error=self._error(row.scheme, logits))

    def _interpreted(self, arch: str, scheme: str) -> float:
        """The error of the same kernels as PTX, from float32 with rounded weights: q4 on a processor rounds more."""
        rounded = self._folder / f"rounded-{scheme}"
        write_rounded(TINY_MODELS[0], scheme, rounded)
        expected = _run([sys.executable, str(FORWARD), str(compiled_folder(str(rounded), "f32"))])
        folder = cuda_stand_in.folder_with_ptx(str(self._source), scheme, arch)
        found = _run([sys.executable, str(FORWARD), str(folder)], cuda_stand_in.environment(arch))
        return float(np.abs(found - expected).max())

    def _error(self, scheme: str, logits: np.ndarray) -> float:
        if scheme not in self._references:
            from cupola.compiler.cpu_target import resolve_cpu

            folder = self._compiled(resolve_cpu(REFERENCE.partition(":")[2], "auto"), scheme)
            self._references[scheme] = _run([sys.executable, str(FORWARD), str(folder)])
        return float(np.abs(logits - self._references[scheme]).max())


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> np.ndarray:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return np.array(json.loads(done.stdout)["logits"])


def _inspected(row: Row, target: GpuTarget, library: bytes) -> Row:
    """The row with what was found in the library's device code."""
    inspect: dict[str, Callable[[bytes], str]] = {"cuda": _cuda, "rocm": _amd, "metal": _metal, "opencl": _opencl}
    lacking = {"cuda": lambda: None, "rocm": amd.missing, "metal": shaders.missing, "opencl": shaders.missing}
    if target.kind not in inspect:
        return row
    why = lacking[target.kind]()
    return replace(row, missing=f"not inspected: {why}") if why else replace(row, checked=inspect[target.kind](library))


def _cuda(library: bytes) -> str:
    codes, kernels = nvidia.read_cubins(library), [k for code in nvidia.read_cubins(library) for k in code.kernels]
    found = (
        f"machine code for {', '.join(code.arch for code in codes)}",
        f"{len(nvidia.sources(library))} sources to compile",
        f"{sum(kernel.local_bytes > 0 for kernel in kernels)} of {len(kernels)} kernels spill",
        f"at most {max(kernel.registers for kernel in kernels)} registers "
        f"and {max(kernel.shared_bytes for kernel in kernels)} bytes of shared memory",
    )
    return "; ".join(found)


def _amd(library: bytes) -> str:
    code = amd.read_code_object(library)
    equal = sum(kernel.arguments == amd.launched_arguments(library, kernel.name) for kernel in code.kernels)
    spilled = max(kernel.spilled for kernel in code.kernels)
    found = (
        f"code object for {code.arch}, wavefronts of {code.kernels[0].wavefront}",
        f"{len(code.undefined)} undefined symbols",
        f"{equal} of {len(code.kernels)} kernels take arguments where the launcher puts them",
        f"at most {spilled} bytes of private memory",
    )
    return "; ".join(found)


def _metal(library: bytes) -> str:
    sources = shaders.metal_sources(library)
    sound = sum(not shaders.metal_errors(source) for source in sources)
    return f"{sound} of {len(sources)} kernels pass clang's C++ front end with a prelude of ours (not Apple's compiler)"


def _opencl(library: bytes) -> str:
    (source,) = shaders.opencl_sources(library)
    errors = re.findall(r"error: (.*)", shaders.opencl_errors(source))
    kinds = "; ".join(sorted(set(errors)))
    return f"{len(errors)} errors from clang's front end for OpenCL C" + (f": {kinds}" if kinds else "")
