"""Where the time of a step goes: every kernel of a model, timed by itself, for several numbers of rows.

The model is compiled kernel by kernel, without the pass that makes one launch of all of them, and called through TVM's
virtual machine with an instrument around each call. Weights are zeros: no kernel's time depends on their values. A
call's time is the least of all rounds; with one thread it is this thread's processor time, which other processes do not
count in.

    python scripts/profile_step.py --rows 1 16 512 --context 1024 [--cpu native] [--quant q4] [--layers 4] [--threads 1]

`--rows 16` are 16 sequences of one row each; from 32 on the rows are one prompt's last chunk.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

MOST_DECODES = 31  # rows up to which each is a sequence of its own


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2", help="a checkpoint, as `cupola serve` takes it")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 512])
    parser.add_argument("--context", type=int, default=1024, help="tokens of each sequence after the step")
    parser.add_argument("--layers", type=int, default=4, help="layers that are compiled and run")
    parser.add_argument("--quant", default="q4")
    parser.add_argument("--pages", default="auto", help="dtype of the pages")
    parser.add_argument("--cpu", default="auto", help="as target.cpu of the compile configuration")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    return parser.parse_args()


ARGUMENTS = parse()
os.environ["TVM_NUM_THREADS"] = str(ARGUMENTS.threads)  # read when TVM is imported
os.environ["TVM_BIND_THREADS"] = "0"

import numpy as np  # noqa: E402
import tvm  # noqa: E402
from tvm import relax  # noqa: E402

from cupola.compiler import device, library, pipeline, target  # noqa: E402
from cupola.compiler.compile import chosen_parameters  # noqa: E402
from cupola.compiler.config import CompileConfig, KvCacheConfig, LimitsConfig, ModelConfig, TargetConfig  # noqa: E402
from cupola.manifest import KvCache  # noqa: E402
from cupola.models import registry  # noqa: E402
from cupola.models.spec import DecoderSpec  # noqa: E402
from cupola.weights.source import open_checkpoint  # noqa: E402


@dataclass(frozen=True)
class Compiled:
    """A model's kernels, one function each, and what a call of `forward` needs."""

    spec: DecoderSpec
    kv_cache: KvCache
    machine: relax.VirtualMachine
    weights: tuple[tvm.runtime.Tensor, ...]


def compiled(arguments: argparse.Namespace) -> Compiled:
    """The first layers of a model for one processor."""
    config = CompileConfig(
        target=TargetConfig(cpu=arguments.cpu),
        model=ModelConfig(quant=arguments.quant),
        kv_cache=KvCacheConfig(dtype=arguments.pages),
        limits=LimitsConfig(max_step_tokens=max(512, *arguments.rows)),
    )
    checkpoint = open_checkpoint(arguments.model)
    _, whole = registry.read(checkpoint.config)
    layers = min(arguments.layers, whole.num_layers)
    spec = replace(whole, layers=whole.layers[:layers], experts=whole.experts[:layers])
    parameters = chosen_parameters(spec, checkpoint, arguments.quant)
    dtype = {"auto": "float32" if arguments.quant == "f32" else "int16"}.get(arguments.pages, arguments.pages)
    size = config.kv_cache.page_size
    cpu = target.resolve(config.target)
    kv_cache = KvCache(page_size=size, dtype=dtype, page_elements=device.page_layout(spec, size, dtype, cpu).elements)
    with cpu.tvm_target():
        module, names = library.decoder_module(spec, parameters, kv_cache, config.limits, cpu)
        tensors = module["forward"].params[-1].ty.fields
        lowered = library.lower(library.plan(module))
        pipeline.register()
        executable = relax.build(lowered, cpu.tvm_target(), relax_pipeline=None, tir_pipeline=pipeline.CPU_PIPELINE)
    assert len(tensors) == len(names)
    weights = tuple(
        tvm.runtime.tensor(np.zeros([int(extent) for extent in tensor.shape.values], str(tensor.dtype)))
        for tensor in tensors
    )
    return Compiled(spec, kv_cache, relax.VirtualMachine(executable, tvm.cpu()), weights)


def step_arguments(model: Compiled, rows: int, context: int) -> list[object]:
    """The arguments of `forward` before the weights: `rows` decodes, or the last rows of one prompt."""
    size = model.kv_cache.page_size
    sequences = rows if rows <= MOST_DECODES else 1
    each = rows // sequences
    pages = -(-context // size)
    ids = np.random.default_rng(0).permutation(sequences * pages)
    positions = np.tile(np.arange(context - each, context), sequences)
    owner = np.repeat(np.arange(sequences), each)
    slots = ids[owner * pages + positions // size] * size + positions % size
    steps = np.arange(sequences + 1)
    ints = (
        np.zeros(rows),
        positions,
        slots,
        steps * each,
        steps * pages,
        ids,
        np.full(sequences, context),
        steps[1:] * each - 1,
    )
    cache = model.machine["alloc_kv_cache"](tvm.runtime.ShapeTuple([sequences * pages]))
    for tensor in cache:
        tensor.copyfrom(np.zeros(tensor.shape, tensor.dtype))
    return [*(tvm.runtime.tensor(array.astype(np.int32)) for array in ints), cache]


def profile(model: Compiled, arguments: Sequence[object], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of each kernel in one step: the least of all rounds, call by call."""
    started, calls = [0.0], list[tuple[str, float]]()

    def around(_function: object, name: str, before: bool, _result: object, *_arguments: object) -> int:
        if before:
            started[0] = clock()
        else:
            calls.append((name, clock() - started[0]))
        return int(relax.VMInstrumentReturnKind.NO_OP)

    model.machine.set_instrument(around)
    least: list[tuple[str, float]] = []
    for _ in range(rounds):
        calls.clear()
        model.machine["forward"](*arguments, model.weights)
        kernels = [call for call in calls if not call[0].startswith("vm.")]
        least = [(name, min(t, best)) for (name, t), (_, best) in zip(kernels, least or kernels, strict=True)]
    seconds: dict[str, float] = {}
    for name, time_ in least:
        kind = re.sub(r"\d+$", "", name)  # TVM numbers the kernels of one name
        seconds[kind] = seconds.get(kind, 0.0) + time_
    return seconds


def main() -> None:
    """Prints a Markdown table: a row for each kernel, a column for each number of rows."""
    clock = time.thread_time if ARGUMENTS.threads == 1 else time.perf_counter
    model = compiled(ARGUMENTS)
    columns = []
    for rows in ARGUMENTS.rows:
        step = step_arguments(model, rows, max(rows if rows > MOST_DECODES else 1, ARGUMENTS.context))
        columns.append(profile(model, step, ARGUMENTS.rounds, clock))
    kernels = sorted(columns[-1], key=lambda name: -columns[-1][name])
    print(f"| microseconds, {model.spec.num_layers} layers | " + " | ".join(f"{n} rows" for n in ARGUMENTS.rows) + " |")
    print("|---|" + "---|" * len(columns))
    for name in (*kernels, "all"):
        totals = [sum(column.values()) for column in columns]
        values = totals if name == "all" else [column[name] for column in columns]
        cells = [f"{v * 1e6:,.0f} ({v / total:.0%})" for v, total in zip(values, totals, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
