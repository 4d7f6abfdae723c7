"""Measures a GPU: a model's shape with generated weights through the engine, beside what the device can do at most, and
beside transformers with torch. docs/gpu.md says how to carry it to a machine that has one.

    python scripts/measure_gpu.py compile --work W [--shape llama-3-8b] [--device cuda:sm_90] [--quant f16 q4]
    python scripts/measure_gpu.py run     --work W [--shape llama-3-8b] [--device cuda] [--torch-python python3]

`compile` needs the compiler and no GPU; `run` needs the GPU and no compiler. Contenders take turns; figures are medians
of all rounds. Writes W/measured.json and W/measured.md. Exit status: 0 if all was measured, 3 if a part was not (it
says which and why), 1 if nothing was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cupola.errors import CupolaError
from cupola.manifest import FILE_NAME, Manifest
from gpu_speed.cases import STEPS, Case, Figures, Work, record, table
from gpu_speed.peer import Peer, PeerError

PARTLY = 3
COPIED = 1 << 30  # bytes


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who can be timed."""

    name: str
    seconds: Callable[[Case], float]


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.command == "compile":
            from cupola.compiler.config import LimitsConfig
            from gpu_speed.compiled import compile_all

            limits = LimitsConfig(max_step_tokens=chosen.max_step_tokens, max_batch=chosen.max_batch)
            compile_all(chosen.work, chosen.shape, chosen.device, chosen.quant, limits)
            return 0
        return Run(chosen).all()
    except CupolaError as error:
        print(
            f"error: {error.message}; hint: {error.hint}" if error.hint else f"error: {error.message}", file=sys.stderr
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--work", type=Path, required=True, help="the folder that is carried")
    both.add_argument("--shape", default="llama-3-8b", help="a name of device_checks/shapes.py")
    compile_ = commands.add_parser("compile", parents=[both], help="on a machine with the compiler")
    compile_.add_argument("--device", default="cuda:sm_90", help="cuda:ARCHITECTURE or webgpu")
    compile_.add_argument("--quant", nargs="+", default=["f16", "q4"])
    compile_.add_argument("--max-step-tokens", type=int, default=4096)
    compile_.add_argument("--max-batch", type=int, default=128)
    run = commands.add_parser("run", parents=[both], help="on the machine with the GPU")
    run.add_argument("--device", default="cuda", help="cuda or webgpu")
    run.add_argument("--torch-python", default=sys.executable, help='an interpreter that has torch; "" for none')
    run.add_argument("--decode", type=int, nargs="*", default=[1, 8, 32, 128], help="streams")
    run.add_argument("--prefill", type=int, nargs="*", default=[512, 4096], help="tokens of prompts")
    run.add_argument("--steps", type=int, default=STEPS, help="tokens that a stream generates")
    run.add_argument("--rounds", type=int, default=5)
    run.add_argument("--minutes", type=float, default=9, help="no round begins after so many")
    run.add_argument("--copied", type=int, default=COPIED, help="bytes of the copy that stands for the bandwidth")
    return parser


class Run:
    """One run of all contenders."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self._chosen, self._begin = chosen, time.monotonic()
        self._figures = Figures()
        self._works: dict[str, Work] = {}
        self._cases = [Case("decode", count, chosen.steps) for count in chosen.decode]
        self._cases += [Case("prefill", count) for count in chosen.prefill]

    def all(self) -> int:
        """Returns the exit status. CupolaError: the device cannot be used."""
        from gpu_speed.device import Device, product_size, roofline

        chosen, figures = self._chosen, self._figures
        device = Device(chosen.device)
        peer, torch_flops = self._peer(product_size("float16" if chosen.device == "cuda" else "float32"))
        bounds = roofline(device, chosen.work, torch_flops, chosen.copied)
        contenders = [*self._ours(device), *([] if peer is None else [Contender(peer.name, peer.seconds)])]
        if not any(contender.name in self._works for contender in contenders):
            print(f"error: nothing of ours can be measured: {figures.missing}", file=sys.stderr)
            return 1
        self._rounds(contenders)
        text = table(self._cases, bounds, self._works, figures)
        values = record(device.name, chosen.shape, bounds, self._works, figures)
        (chosen.work / "measured.json").write_text(dumps(values, indent=1) + "\n", encoding="utf-8")
        (chosen.work / "measured.md").write_text(text, encoding="utf-8")
        print(text)
        return PARTLY if figures.missing else 0

    def _peer(self, size: int) -> tuple[Peer | None, float | None]:
        """transformers with torch, and the flops of its product of this size; nothing if something is missing."""
        chosen = self._chosen
        try:
            if not chosen.torch_python:
                raise PeerError("--torch-python names no interpreter")
            shape = loads((chosen.work / f"{chosen.shape}.json").read_text(encoding="utf-8"))
            peer = Peer(chosen.torch_python, shape, "cuda" if chosen.device == "cuda" else "cpu")
            return peer, peer.flops(size)
        except PeerError as error:
            self._figures.missing["transformers with torch"] = str(error)
            return None, None

    def _ours(self, device: object) -> list[Contender]:
        """The engine and the steps alone, for every scheme that was compiled."""
        from gpu_speed.device import Device, Steps
        from gpu_speed.engine import Streams
        from gpu_speed.weights import write_weights

        assert isinstance(device, Device)
        found = []
        for folder in sorted(self._chosen.work.glob(f"{self._chosen.shape}-*")):
            manifest = Manifest.model_validate_json((folder / FILE_NAME).read_text(encoding="utf-8"))
            write_weights(folder, manifest)
            ways: dict[str, Callable[[], Streams | Steps]] = {
                f"Cupola {manifest.scheme}": lambda f=folder, m=manifest: Streams(f, m, self._cases),  # type: ignore[misc]
                f"its steps alone, {manifest.scheme}": lambda f=folder, m=manifest: Steps(device, f, m),  # type: ignore[misc]
            }
            for name, way in ways.items():
                try:
                    found.append(Contender(name, way().seconds))
                    self._works[name] = Work.of(manifest)
                except (CupolaError, RuntimeError, MemoryError) as error:
                    self._figures.missing[name] = str(error).splitlines()[0]
        return found

    def _rounds(self, contenders: Sequence[Contender]) -> None:
        """One round that counts for nothing, then the others; who fails once is asked no more."""
        failed = set[tuple[str, str]]()
        for number in range(self._chosen.rounds + 1):
            if number > 1 and time.monotonic() - self._begin > 60 * self._chosen.minutes:
                self._figures.missing["more rounds"] = f"time was up after {number - 1} of {self._chosen.rounds}"
                return
            for case in self._cases:
                for contender in contenders:
                    if (contender.name, case.name) in failed:
                        continue
                    try:
                        seconds = contender.seconds(case)
                    except (CupolaError, PeerError, RuntimeError) as error:
                        failed.add((contender.name, case.name))
                        self._figures.missing[f"{contender.name}, {case.name}"] = str(error).splitlines()[0]
                        continue
                    if number:
                        self._figures.add(contender.name, case.name, seconds)


if __name__ == "__main__":
    sys.exit(main())
