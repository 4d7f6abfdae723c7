"""Lowering of our kernels: the few TIR passes that they need.

TVM's default pipeline spends most of a minute on a model here, in passes that schedule, simplify and search for common
subexpressions; our kernels come scheduled, simplified and with every repeated value named, and LLVM does the rest.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.s_tir.pipeline import finalize_device_passes, finalize_host_passes

from cupola.compiler.target import CpuTarget, Target

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
    return to_functions(), finalize_host_passes, finalize_device_passes


def _gpu_pipeline() -> tuple[tvm.transform.Pass, object, object]:
    return to_functions(), finalize_host_passes, _finalize_gpu_passes


def to_functions() -> tvm.transform.Pass:
    """Functions that can be called, of the host and of the device."""
    return tvm.transform.Sequential(
        [
            tirx.transform.ConvertSSA(),  # stages of one kernel come with the same variables
            tirx.transform.FlattenBuffer(),
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
