"""The machine that figures belong to: hardware and software, nothing that names its owner."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict


class Machine(BaseModel):
    """Processor, cores, memory (bytes), kernel, Python."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    cores: int
    memory: int
    instructions: tuple[str, ...]
    system: str
    python: str

    def describe(self) -> str:
        """One line for people."""
        extensions = ", ".join(self.instructions) or "no vector extension known here"
        return f"{self.processor}, {self.cores} cores ({extensions}), {self.memory / 2**30:.0f} GiB, {self.system}"


def this_machine() -> Machine:
    """Describe the machine that this runs on."""
    facts = _processor_facts()
    flags = set(facts.get("flags", "").split())
    return Machine(
        processor=facts.get("model name") or platform.processor() or platform.machine(),
        cores=os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        instructions=tuple(
            name for name in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8") if name in flags
        ),
        system=f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}",
        python=platform.python_version(),
    )


def _processor_facts() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    lines = file.read_text(errors="replace").partition("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
