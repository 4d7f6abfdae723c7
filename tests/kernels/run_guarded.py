"""Runs a group of kernels between guard pages, in a process that may die of it: `python -m kernels.run_guarded GROUP`.

Prints each call before it is made, so that the last line names the guilty one.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from cupola.compiler.target import CpuTarget
from cupola.kernels.cpu.emit import LANES, Arg, Span, for_each_row, kernel, let, size_var
from kernels import kernel_cases
from kernels.guarded import GuardedArray, Side
from kernels.guarded_latents import latent_cases
from kernels.kernel_cases import Case
from kernels.kernel_driver import TARGET, TARGETS, load_module

Cases = Callable[[], Iterator[Case]]


def shifted_copy(name: str, read: int, write: int) -> Iterator[Case]:
    """y = x in vectors, read and written this many elements off: what must not go unnoticed."""
    n = size_var("n")

    def body(x: Span, y: Span) -> None:
        for_each_row(n, lambda i: y.store(i * LANES + write, x.load(let(i * LANES + read))))

    args = {"x": Arg((n, LANES), "float32"), "y": Arg((n, LANES), "float32")}
    x = np.ones((5, LANES), np.float32)
    yield Case(name, kernel(name, args, body), ((x, np.zeros_like(x)),), inputs=1)


RIGHT: Mapping[str, Cases] = {
    **{f"linear-{isa.name}": lambda isa=isa: kernel_cases.linear_cases(isa) for isa in TARGETS},
    **{f"experts-{isa.name}": lambda isa=isa: kernel_cases.expert_cases(isa) for isa in tuple(TARGETS)[-1:]},
    "routing": kernel_cases.routing_cases,
    "activation": kernel_cases.activation_cases,
    "encoder": kernel_cases.encoder_cases,
    **{f"encoder-attention-{isa.name}": lambda isa=isa: kernel_cases.encoder_attention_cases(isa) for isa in TARGETS},
    "rows": kernel_cases.row_cases,
    "position": kernel_cases.position_cases,
    **{f"attention-{isa.name}": lambda isa=isa: kernel_cases.attention_cases(isa) for isa in TARGETS},
    "latent": latent_cases,
}
WRONG: Mapping[str, Cases] = {
    "reads-behind": lambda: shifted_copy("reads-behind", read=1, write=0),
    "reads-before": lambda: shifted_copy("reads-before", read=-1, write=0),
    "writes-behind": lambda: shifted_copy("writes-behind", read=0, write=1),
    "writes-before": lambda: shifted_copy("writes-before", read=0, write=-1),
}


def run(case: Case, target: CpuTarget, sides: Sequence[Side]) -> None:
    """All calls of a case with the guards on each of the sides.

    Raises:
        AssertionError: something was written beside a tensor, or into an input.
    """
    compiled = load_module(case.function, target)["kernel"]
    for call, side in product(case.calls, sides):
        print(f"{case.name}, {len(call[0])} rows, guards {side.value}", flush=True)
        guarded = [GuardedArray(array, side) for array in call]
        compiled(*(one.tensor for one in guarded))
        for at, (one, before) in enumerate(zip(guarded, call, strict=True)):
            assert not one.touched_beside(), f"argument {at} was written beside"
            assert at >= case.inputs or one.array.tobytes() == before.tobytes(), f"input {at} was written"


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    group, sides = sys.argv[1], [Side(name) for name in sys.argv[2:]]
    target = next((target for isa, target in TARGETS.items() if group.endswith(f"-{isa.name}")), TARGET)
    for case in (RIGHT | WRONG)[group]():
        run(case, target, sides)


if __name__ == "__main__":
    main()
