"""Lowering of our kernels: the few TIR passes that they need.

TVM's default pipeline spends most of a minute on a model here, in passes that schedule, simplify and search for common
subexpressions; our kernels come scheduled, simplified and with every repeated value named, and LLVM does the rest.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.s_tir.pipeline import finalize_device_passes, finalize_host_passes

CPU_PIPELINE = "cupola_cpu"


def register() -> None:
    """Makes the pipeline known to TVM under `CPU_PIPELINE`; may be called again."""
    tirx.register_tir_pipeline(CPU_PIPELINE, _cpu_pipeline)


def _cpu_pipeline() -> tuple[tvm.transform.Pass, object, object]:
    passes = tvm.transform.Sequential(
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
    return passes, finalize_host_passes, finalize_device_passes
